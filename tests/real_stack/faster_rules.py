"""The stack's own rules, for tests that cannot wait for half an hour."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.real import scaled_rules
from tests.real_stack.clone import Stack

WINDOW_MIN_S = 15  # three scrapes


@contextmanager
def faster_rules(stack: Stack, factor: float) -> Iterator[None]:
    """Divide the durations of every rule, and have them evaluated more often; afterwards they are as they were.

    Args:
        stack: Must be up.
        factor: Half an hour takes that many times less.
    """
    folder, kept = stack.root / "prometheus", stack.root / "prometheus.kept"
    shutil.copytree(folder, kept, dirs_exist_ok=True)
    scaled_rules.write(folder / "rules", factor, WINDOW_MIN_S)
    settings = folder / "prometheus.yml"
    settings.write_text(settings.read_text().replace("evaluation_interval: 15s", "evaluation_interval: 3s"))
    stack.compose("kill", "--signal", "HUP", "prometheus")
    try:
        yield
    finally:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        stack.compose("kill", "--signal", "HUP", "prometheus")
