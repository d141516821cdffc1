"""Fixtures of the runtime room."""

import pytest

from tests.runtime.rig import supervised


@pytest.fixture
async def rig():
    """A supervisor that must leave nothing behind."""
    async with supervised() as rig:
        yield rig
