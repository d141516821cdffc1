"""Fixtures for whole-program tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.stack import Stack


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
