"""One engine, one clone and one stack for all tests of this folder: bringing them up takes minutes."""

import time
from collections.abc import Iterator

import pytest

from tests.real_stack.clone import Stack, clone
from tests.real_stack.engine import TOLD, Engine, told


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at the stack as it came up before other tests replace what is in it, which is an alert of its own."""
    items.sort(key=lambda item: item.path.name != "test_fresh.py")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Run an engine; afterwards nothing of it runs."""
    engine = Engine()
    yield engine
    engine.down()


@pytest.fixture(scope="session")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Bring the stack up from nothing, as a newcomer does: `make up` in a clean clone."""
    root = tmp_path_factory.mktemp("clone")
    stack = Stack(engine, clone(root))
    names = stack.images
    engine.make_images(names)
    began_s = time.monotonic()
    stack.compose("build", "llmswap")
    told(f"llmswap's image: {time.monotonic() - began_s:.0f} s")
    engine.make_standins(names, names["llmswap"])
    began_s = time.monotonic()
    stack.make("up")
    stack.took_s = time.monotonic() - engine.began_s
    told(f"make up: healthy after {time.monotonic() - began_s:.0f} s; {stack.took_s:.0f} s since there was no engine")
    yield stack
    stack.compose("down", "--volumes", "--timeout", "5")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was real and what was not, and how long things took."""
    terminalreporter.section("the stack")
    for line in TOLD:
        terminalreporter.write_line(line)
