"""Starting commands."""

import os

from llmswap.runtime import spawn
from llmswap.runtime.tree import TAG_NAME


def test_environment_is_ours_then_the_configured_then_the_tag(monkeypatch):
    monkeypatch.setenv("A", "ours")
    env = spawn.environment(["A=1", "B=x=y", "A=2", "EMPTY="], "i:m:1")
    assert (env["A"], env["B"], env["EMPTY"], env[TAG_NAME]) == ("2", "x=y", "", "i:m:1")
    assert env["PATH"] == os.environ["PATH"]


def test_setpriv_that_cannot_tie_children_is_not_used_and_that_is_told(monkeypatch, tmp_path, caplog):
    cannot = tmp_path / "setpriv"
    cannot.write_text("#!/bin/sh\nexit 1\n")
    cannot.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert spawn._tie.__wrapped__() == ()
    assert "until its next start" in caplog.text


def test_without_setpriv_children_are_started_all_the_same(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "/nowhere")
    assert spawn._tie.__wrapped__() == ()
