"""What `llmswap simulate` does; its flags are in `flags.py`."""

import argparse
import json
import sys
from collections.abc import Callable

from llmswap.journal.reader import JournalError
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.findings import as_json, as_text
from llmswap.sim.whatif.policies import PolicyError
from llmswap.sim.whatif.progress import Bar
from llmswap.sim.whatif.study import carry_out, picture, plan

EXIT_FAILED, EXIT_USAGE = 1, 2


def run(args: argparse.Namespace, clock: Callable[[], float]) -> int:
    """Compare policies.

    Args:
        args: As `flags.py` declares them.
        clock: Seconds that pass for the user, who is shown progress if it takes long.

    Raises:
        ConfigError: A scenario or a config cannot be used.
    """
    if args.list:
        wide = max(map(len, scenario.names()))
        for name in scenario.names():
            sys.stdout.write(f"{name:<{wide}}  {scenario.load(name).about}\n")
        return 0
    bar = Bar(clock)
    try:
        study = plan(args, bar.show)
        findings = carry_out(study, bar.show)
    except (PolicyError, JournalError) as error:
        sys.stderr.write(f"llmswap simulate: {error}\n")
        return EXIT_USAGE
    finally:
        bar.clear()
    sys.stdout.write(json.dumps(as_json(findings), indent=2) + "\n" if args.json else as_text(findings))
    if args.plot is not None:
        try:
            args.plot.write_text(picture(study, findings), "utf-8")
        except OSError as error:
            sys.stderr.write(f"llmswap simulate: --plot {args.plot}: cannot be written: {error.strerror}\n")
            return EXIT_FAILED
    return 0
