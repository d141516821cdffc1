"""The command line: spellings, exit codes, and what a user reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from llmswap.cli import main

GOOD = "models:\n  a:\n    cmd: server --port ${PORT}\n"
BAD = "models:\n  a:\n    cmd: server --port ${PORT}\n    tll: 5\n  b:\n    cmd: x ${PORT}\n    ttl: -7\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


def test_check_of_a_good_config_says_so_and_exits_0(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "ok: 1 model(s), 0 warning(s)\n"


def test_check_names_every_issue_with_its_place_and_exits_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(BAD)

    assert main(["check", "--config", str(config)]) == 2

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"error: {config}:4:5: models.a.tll: ")
    assert "did you mean" in lines[0]
    assert "ttl" in lines[0]
    assert lines[1].startswith(f"error: {config}:7:")
    assert lines[-1] == "2 error(s)"


def test_check_json_is_for_machines(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(BAD)

    assert main(["check", "--json", "--config", str(config)]) == 2

    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [error["path"] for error in report["errors"]] == ["models.a.tll", "models.b.ttl"]
    assert report["errors"][0]["line"] == 4


def test_without_a_config_it_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as ended:
        main(["check"])

    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_schema_is_a_json_schema_that_accepts_a_good_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0

    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    assert validator(schema).is_valid({"models": {"a": {"cmd": "server --port ${PORT}"}}})
    assert not validator(schema).is_valid({"models": {"a": {"tll": 5}}})


@pytest.mark.parametrize(
    "spelling",
    [
        ["-config", "FILE", "-listen", "0.0.0.0:0"],
        ["-config=FILE", "-listen=0.0.0.0:0"],
        ["--config", "FILE", "--listen", "0.0.0.0:0", "--watch-config"],
        ["-config", "FILE", "-listen", ":0", "-watch-config=true"],
        ["serve", "--config", "FILE", "--listen", "[::]:0"],
    ],
)
def test_serve_is_reached_by_llama_swaps_spellings_and_refuses_an_open_bind_without_keys(
    spelling: list[str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word.replace("FILE", str(config)) for word in spelling]

    assert main(arguments) == 78

    message = capsys.readouterr().err
    assert "apiKeys" in message
    assert "--allow-unauthenticated" in message


def test_serve_with_a_bad_config_names_the_issues_and_exits_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(BAD)

    assert main(["serve", "--config", str(config)]) == 2
    assert "models.b.ttl" in capsys.readouterr().err


@pytest.mark.parametrize("half", ["--tls-cert-file", "--tls-key-file"])
def test_half_a_tls_pair_is_refused(half: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--config", str(config), half, "x.pem"])

    assert ended.value.code == 1
    assert "both or neither" in capsys.readouterr().err


def test_status_of_a_server_that_is_not_there_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", "http://127.0.0.1:9"]) == 1
    assert "is `llmswap serve` running?" in capsys.readouterr().err


def test_an_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["swerve"])

    assert ended.value.code == 2
    assert "serve" in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("llmswap ")


def test_python_without_assertions_is_refused(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "llmswap", "check", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode == 1
    assert "python -O" in done.stderr


def test_nothing_is_said_to_a_reader_who_has_left() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "llmswap", "simulate", "--list"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},  # as a shell has it
            timeout=20,
            check=False,
        )
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (1, b"")
