"""The flags of `llmswap demo`."""

import argparse
import asyncio
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--port", type=_port, default=8080, help="where to serve; if taken, a free one (default: 8080)")
    parser.add_argument("--duration", type=_positive, metavar="S", help="end after this many seconds (default: Ctrl-C)")
    parser.add_argument(
        "--time-scale",
        type=_positive,
        default=0.25,
        metavar="X",
        help="how long the simulated engines take: 1 is as long as real ones (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the scripted clients (default: %(default)s)")
    parser.add_argument(
        "--journal",
        type=Path,
        metavar="FILE",
        help="where to record it, to be kept (default: in the demo's own folder, gone when it ends)",
    )
    parser.add_argument("--plain", action="store_true", help="one line per event, also on a terminal")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give 0 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the demo from parsed arguments."""
    from llmswap.demo.show import Wishes, show

    wishes = Wishes(args.port, args.duration, args.time_scale, args.seed, args.plain, args.journal)
    return asyncio.run(show(wishes))
