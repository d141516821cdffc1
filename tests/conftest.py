"""Fixtures for whole-program tests, and what no test may leave to the next one."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.stack import Stack


@pytest.fixture(autouse=True)
def _log_level_as_before() -> Iterator[None]:
    """Undo the log level of an llmswap that ran inside this process."""
    log = logging.getLogger("llmswap")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture
def stack(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Start llmswap as a real process: `program = stack.start(config)`. Fails the test if anything is left behind."""
    stack = Stack(tmp_path)
    yield stack
    stack.close(tracebacks_allowed=request.node.get_closest_marker("tracebacks") is not None)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Give an HTTP client with no connection limit and a bounded patience."""
    timeout = aiohttp.ClientTimeout(total=45, connect=5)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield session
