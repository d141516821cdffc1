"""The entry points: `python -m llmswap.fake_upstream`, and the pieces `llmswap fake-upstream` is made of."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from llmswap.fake_upstream.options import BadFault, BadKnob, add_arguments, resolve

__all__ = ["add_arguments", "main", "run"]


def main(argv: Sequence[str]) -> int:
    """Parse the arguments after the program's name, run, give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llmswap.fake_upstream")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Run from parsed arguments; 2 if one of them makes no sense."""
    try:
        options, knobs, faults = resolve(args)
    except (BadKnob, BadFault) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    from llmswap.fake_upstream.server import serve  # after the arguments are good: aiohttp is most of the start

    return asyncio.run(serve(options, knobs, faults))
