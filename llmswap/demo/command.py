"""The flags of `llmswap demo`."""

import argparse
import asyncio


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--port", type=int, default=8080, help="where to serve (default: 8080, or a free one)")
    parser.add_argument("--duration", type=float, metavar="S", help="end after this many seconds (default: Ctrl-C)")
    parser.add_argument(
        "--time-scale",
        type=float,
        default=0.1,
        metavar="X",
        help="how fast the simulated engines load and speak: 1 is as real ones do (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the scripted clients (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="one line per event, also on a terminal")


def run(args: argparse.Namespace) -> int:
    """Run the demo from parsed arguments."""
    from llmswap.demo.show import show

    return asyncio.run(show(args.port, args.duration, args.time_scale, args.seed, plain=args.plain))
