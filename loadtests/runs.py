"""Runs scenarios with Locust, each in a process of its own, before a box of our own or a target that is there."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadtests import compare, gate, report, scenario
from loadtests.box import box, policy_of
from loadtests.report import Report

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
# Quick ones of every kind; claude_code_slots is shown to fail under the policy that thrashes, too.
CI = ("claude_code_slots", "opencode_fanout", "burst", "unknown", "disconnect", "overload")


@dataclass(frozen=True, slots=True)
class Settings:
    """How scenarios are run; 0 and empty leave it to them."""

    report: Path
    policy: str = "fair"
    seed: int = 1
    minutes: float = 0.0
    time_scale: float = 0.0
    processes: int = 1
    models: str = ""
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: Locust's exit code, and the report if there is one."""

    code: int
    report: Report | None


def settings(args: argparse.Namespace) -> Settings:
    """Take them from a command line."""
    return Settings(
        args.report,
        args.policy,
        args.seed,
        args.minutes,
        args.time_scale,
        args.processes,
        args.models,
        tuple(args.locust),
    )


def one(how: Settings, name: str, target: str = "") -> int:
    """Run a scenario and say where its report is; gives the exit code."""
    outcome = run(how, name, target)
    if outcome.report is not None:
        print(f"\n{_line(name, target or how.policy, outcome)}")
        print(*(f"  {reason}" for reason in outcome.report.card["verdict"]["reasons"]), sep="\n", end="")
        print(f"\n{outcome.report.folder / report.PAGE}")
    return outcome.code


def every(how: Settings, names: Sequence[str]) -> int:
    """Run scenarios one after the other; gives 1 if one of them did not come out as it should."""
    return max([_show(how, name) for name in names], default=0)


def ci(how: Settings) -> int:
    """Run a choice of scenarios, and the first of them under the policies that it is to show up, too."""
    worst = every(how, CI)
    return max([worst, *(_show(replace(how, policy=policy), CI[0]) for policy in scenario.load(CI[0]).fails_under)])


def card(args: argparse.Namespace) -> int:
    """Run a scenario under both policies and put what came of it into a page of the documentation."""
    with tempfile.TemporaryDirectory(prefix="loadtests-") as name:
        how = Settings(Path(name), minutes=args.minutes)
        outcomes = [run(replace(how, policy=policy), args.scenario) for policy in ("fifo", "fair")]
        reports = [outcome.report for outcome in outcomes if outcome.report is not None]
        if len(reports) < len(outcomes):
            return 1
        compare.document(reports[0], reports[1], args.page)
    return 0


def run(how: Settings, name: str, target: str = "") -> Outcome:
    """Run a scenario.

    Args:
        how: The settings.
        name: Of the scenario.
        target: URL of a proxy that is there; empty to start llmswap with simulated upstreams.
    """
    play = scenario.load(name)
    with tempfile.TemporaryDirectory(prefix="loadtests-") as folder:
        reports = Path(folder) / "reports"
        if target:
            code = _locust(how, name, _Aim(target, how.time_scale or 1.0, ()), reports)
        else:
            real_s = how.time_scale or play.time_scale
            with box(play, how.policy, real_s, Path(folder) / "box") as own:
                own_flags = ("--alone", "--policy", how.policy, "--llmswap-log", str(own.log))
                code = _locust(how, name, _Aim(own.url, real_s, own_flags), reports)
        written = list(reports.iterdir()) if reports.exists() else []
        if not written:
            return Outcome(code or 2, None)
        how.report.mkdir(parents=True, exist_ok=True)
        kept = _moved(written[0], how.report)
        more = [Path(folder) / "locust.json"]
        more += (
            [] if target else [Path(folder) / "box" / file for file in ("config.yaml", "llmswap.log", "journal.jsonl")]
        )
        for file in more:
            (kept / file.name).write_bytes(file.read_bytes())
        return Outcome(code, report.read(kept))


def _moved(folder: Path, parent: Path) -> Path:
    """Copy a report to where it stays."""
    kept = parent / folder.name
    kept.mkdir(exist_ok=True)
    for file in folder.iterdir():
        (kept / file.name).write_bytes(file.read_bytes())
    return kept


@dataclass(frozen=True, slots=True)
class _Aim:
    """A target: its URL, real seconds for one of the scenario, and what else Locust is to know of it."""

    url: str
    real_s: float
    flags: tuple[str, ...]


def _locust(how: Settings, name: str, aim: _Aim, reports: Path) -> int:
    """Run Locust to its end; gives its exit code."""
    words = ["--headless", "--only-summary", "--loglevel", "WARNING", "--json-file", str(reports.parent / "locust")]
    words += ["--host", aim.url, "--time-scale", str(aim.real_s), "--scenario", name, "--seed", str(how.seed)]
    words += ["--minutes", str(how.minutes), "--models", how.models, "--report", str(reports), "--metrics-port", "0"]
    words += ["--processes", str(how.processes)] if how.processes > 1 else []
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *words, *aim.flags, *how.more]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode


def _show(how: Settings, name: str) -> int:
    """Run a scenario and print what came of it; gives 1 unless it passes, or fails where it is meant to."""
    began_s = time.monotonic()
    outcome = run(how, name)
    print(f"{_line(name, how.policy, outcome)}, {time.monotonic() - began_s:.0f} s", flush=True)
    card = outcome.report.card if outcome.report is not None else None
    for reason in card["verdict"]["reasons"] if card is not None else ["there is no report"]:
        print(f"    {reason}", flush=True)
    if policy_of(how.policy)[0] not in scenario.load(name).fails_under:
        return 0 if outcome.code == 0 else 1
    as_meant = card is not None and gate.failed_by_thresholds(card)
    print(
        f"    {'as it should' if as_meant else 'NOT AS IT SHOULD'}: its thresholds are to show {how.policy} up",
        flush=True,
    )
    return 0 if as_meant else 1


def _line(name: str, what: str, outcome: Outcome) -> str:
    verdict = "passed" if outcome.code == 0 else f"FAILED (exit {outcome.code})"
    said = "" if outcome.report is None else f": {report.note(outcome.report.card)}"
    return f"{name}, {what}: {verdict}{said}"
