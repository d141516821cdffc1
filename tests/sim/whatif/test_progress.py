"""The progress bar: for who sits at a terminal and has to wait."""

import io
import sys

import pytest

from llmswap.sim.whatif.progress import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    now_s = [0.0]
    return now_s, lambda: now_s[0]


def test_it_shows_after_a_second_and_takes_itself_away(monkeypatch, clock):
    now_s, read = clock
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    bar = Bar(read)
    now_s[0] = 0.9
    bar.show(0.4, "fair")
    assert terminal.getvalue() == ""
    now_s[0] = 1.1
    bar.show(0.5, "fair")
    bar.show(0.5, "fair")
    assert terminal.getvalue().count(" 50%  fair") == 1
    bar.clear()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_it_does_not_show_in_a_file(monkeypatch, clock):
    now_s, read = clock
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    bar = Bar(read)
    now_s[0] = 99.0
    bar.show(0.5, "fair")
    bar.clear()
    assert plain.getvalue() == ""
