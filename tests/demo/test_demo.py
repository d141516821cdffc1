"""The demo as a newcomer runs it: a real process, real swaps, a clean end."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from llmswap.cli import main

LIMIT_S = 30


def command(*flags):
    return [sys.executable, "-m", "llmswap", "demo", "--time-scale", "0.02", *flags]


@contextmanager
def running(*flags, **options):
    """Run it; at the end nothing it started may be left."""
    process = subprocess.Popen(command(*flags), text=True, **options)
    family = set()

    def descendants():
        family.update(psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ())
        return family

    try:
        yield process, descendants
    finally:
        process.kill()
        process.wait()
        left = [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        for child in left:
            child.kill()
    assert not left


def run(*flags):
    with running(*flags, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as (process, _):
        output, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, output


def test_it_shows_swaps_in_both_directions():
    with running("--port", "0", stdout=subprocess.PIPE) as (process, descendants):
        wanted = [r"loading big-reasoner in place of", r"loading (coder|small-chat) in place of big-reasoner"]
        for line in process.stdout:  # ends with the process, and pytest's timeout bounds it
            wanted = [pattern for pattern in wanted if not re.search(pattern, line)]
            if not wanted:
                break
        descendants()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=LIMIT_S)
        loads, swaps = map(int, re.search(r"(\d+) loads, (\d+) of them", rest).groups())
    assert process.returncode == 0
    assert loads > swaps >= 2


def test_it_ends_by_itself_with_a_summary():
    code, output = run("--port", "0", "--duration", "1.5")
    assert code == 0, output
    assert re.search(r"curl http://127\.0\.0\.1:\d+/v1/chat/completions", output)
    assert re.search(r"\d+ requests served in .* s", output)


def test_a_taken_port_is_said_and_another_one_found():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = run("--port", str(port), "--duration", "0.3")
    assert code == 0, output
    assert f"port {port} is taken" in output
    assert f"127.0.0.1:{port}/" not in output
    assert "llmswap serves at http://127.0.0.1:" in output


def test_its_journal_replays(tmp_path):
    path = tmp_path / "journal.jsonl"
    code, output = run("--port", "0", "--duration", "1", "--journal", str(path))
    assert code == 0, output
    assert f"simulate {path}" in output.splitlines()[-1]
    assert main(["replay", str(path)]) == 0
    recorded = path.read_text()
    assert '"caller":"chat user"' in recorded  # who is told apart by timing alone is not simulated well
    assert '"max_wait_s":1.0' in recorded  # 120 s would be longer than anybody watches a demo


def test_a_journal_that_cannot_be_written_is_said(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("something else\n")
    code, output = run("--port", "0", "--duration", "0.3", "--journal", str(path))
    assert code == 0, output
    assert f"It could not be recorded in {path}: the file exists and is not a journal" in output
    assert path.read_text() == "something else\n"


@pytest.mark.skipif(not shutil.which("curl"), reason="pastes the curl lines it prints")
def test_its_curl_lines_work_as_pasted_and_ctrl_c_stops_everything():
    with running("--port", "0", stdout=subprocess.PIPE) as (process, descendants):
        lines = [process.stdout.readline() for _ in range(5)]
        assert lines[2].endswith("\\\n")
        pasted = subprocess.run(
            ["sh", "-c", "".join(lines[2:4])], capture_output=True, text=True, timeout=LIMIT_S, check=True
        )
        assert '"object": "chat.completion"' in pasted.stdout, pasted
        assert descendants()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert "requests served" in output


def test_on_a_terminal_it_draws_in_place_without_colour_if_unwanted_and_puts_the_terminal_back():
    leader, follower = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with running("--port", "0", "--duration", "1.5", stdout=follower, stdin=follower, env=environment) as (process, _):
        os.close(follower)
        shown = b""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the terminal's way to say that nobody writes any more
                break
            shown += piece
        assert process.wait(timeout=5) == 0
    os.close(leader)
    text = shown.decode()
    screen, _, after = text.partition("\x1b[?1049l")
    assert "\x1b[?1049h\x1b[?25l" in screen
    assert "\x1b[?25h" in screen
    assert screen.count("\x1b[H") > 3
    for word in ("MODEL", "small-chat", "big-reasoner", "GPU", "CLIENT", "WHAT HAPPENED"):
        assert word in screen
    assert "requests served" in after
    assert not re.search(r"\x1b\[[0-9;]*m", text)


@pytest.mark.parametrize(
    "flags", [("--time-scale", "0"), ("--duration", "-1"), ("--duration", "soon"), ("--port", "70000")]
)
def test_flags_that_make_no_sense_are_refused(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", *flags])
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err
