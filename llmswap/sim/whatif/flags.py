"""The flags of `llmswap simulate`. Apart from what they do: no other command waits for the simulator to load."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("journal", nargs="?", type=Path, metavar="JOURNAL", help="what `serve` or `demo` recorded")
    parser.add_argument("--scenario", metavar="NAME|FILE", help="a named workload, or a YAML file with one of your own")
    parser.add_argument("--list", action="store_true", help="list the named workloads")
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="POLICY",
        help="fifo or fair, with settings: fair,hold=10,maxWait=60 (hold, maxWait, queueLimit, concurrencyLimit, "
        "priority.MODEL); may be repeated (default: fifo and fair)",
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a config whose scheduler and rules to try; may be repeated",
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="KEY=V,V",
        help="try fair with every combination of values: hold=0,5,10,auto maxWait=60,120",
    )
    parser.add_argument(
        "--seeds", type=_at_least_1, metavar="N", help="take the mean of so many runs (default: 5; of a journal, 1)"
    )
    parser.add_argument("--hours", type=_positive, metavar="H", help="how much of a scenario to simulate (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw, as SVG, who was loaded when, and the waits")


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number, 1 or more")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
