"""`python -m loadtests`: run scenarios, compare reports. `make load` and its kin are these commands."""

import argparse
import signal
import sys
from pathlib import Path

from loadtests import compare, runs, scenario
from loadtests.reading import BadScenarioError
from loadtests.report import BadReportError

FOLDER = Path("loadtests-reports")


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; gives the exit code."""
    words = sys.argv[1:] if words is None else words
    cut = words.index("--") if "--" in words else len(words)
    args = _parser().parse_args(words[:cut])
    args.locust = words[cut + 1 :]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended first
    try:
        code: int = args.do(args)
    except (BadScenarioError, BadReportError, ValueError) as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Agents' traffic against a swap proxy.",
        epilog="What comes after -- is told to Locust.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run one scenario and write a report")
    run.add_argument("scenario", metavar="SCENARIO|FILE.yaml", help="a named one, or one of your own")
    run.add_argument("--target", default="", metavar="URL", help="a proxy that is there; else llmswap is started")
    run.set_defaults(do=lambda args: runs.one(runs.settings(args), args.scenario, args.target))
    every = commands.add_parser("all", help="run every scenario")
    every.add_argument("scenarios", nargs="*", metavar="SCENARIO|FILE.yaml", help="or these")
    every.set_defaults(do=lambda args: runs.every(runs.settings(args), args.scenarios or scenario.names()))
    ci = commands.add_parser("ci", help="run a choice of scenarios, and see one policy fail")
    ci.set_defaults(do=lambda args: runs.ci(runs.settings(args)))
    for command in (run, every, ci):
        command.add_argument("--policy", default="fair", help="fair, fifo, or fair,hold=10,maxWait=60 (default: fair)")
        command.add_argument("--seed", type=int, default=1, help="of all draws (default 1)")
        command.add_argument("--minutes", type=float, default=0.0, help="of the scenario (default: what it says)")
        command.add_argument("--time-scale", type=float, default=0.0, help="real seconds for one of the scenario's")
        command.add_argument("--processes", type=int, default=1, help="of the load generator (default 1)")
        command.add_argument("--models", default="", help="the target's names of models: planner=qwen3,editor=gemma")
        command.add_argument("--report", type=Path, default=FOLDER, help=f"folder for reports (default {FOLDER})")
    versus = commands.add_parser("compare", help="print and draw how two reports differ")
    versus.add_argument("a", type=Path)
    versus.add_argument("b", type=Path)
    versus.add_argument("--out", type=Path, help="folder for the page (default: that of B)")
    versus.set_defaults(do=lambda args: compare.show(args.a, args.b, args.out or args.b))
    card = commands.add_parser("card", help="fifo beside fair, into a page of the documentation")
    card.add_argument("scenario", metavar="SCENARIO")
    card.add_argument("--page", type=Path, default=Path("docs/load-tests.md"))
    card.add_argument("--minutes", type=float, default=0.0, help="of the scenario (default: what it says)")
    card.set_defaults(do=runs.card)
    return parser


if __name__ == "__main__":
    sys.exit(main())
