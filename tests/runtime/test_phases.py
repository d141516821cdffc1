"""What is told of a phase, however it ends."""

import asyncio
import time

import pytest

from llmswap.core.events import Generation
from llmswap.runtime.observing import Phase, PhaseKind
from llmswap.runtime.phases import CUT_SHORT, Phases
from tests.runtime.rig import M


@pytest.fixture
def told() -> list[Phase]:
    return []


@pytest.fixture
def phases(told: list[Phase]) -> Phases:
    return Phases(M, Generation(3), told.append, lambda text: text.replace("secret", "…"))


def test_a_phase_is_told_when_it_is_over_with_what_was_found(phases: Phases, told: list[Phase]) -> None:
    before_s = time.monotonic()
    with phases.during(PhaseKind.CALL) as phase:
        phase.call, phase.status = "POST /sleep", 200
        assert told == []
    (only,) = told
    assert (only.model, only.generation, only.kind, only.error) == (M, 3, PhaseKind.CALL, "")
    assert (only.call, only.status, only.pid) == ("POST /sleep", 200, None)
    assert before_s <= only.began_s <= only.ended_s <= time.monotonic()


def test_what_leaves_the_block_is_what_went_wrong_without_secrets(phases: Phases, told: list[Phase]) -> None:
    with pytest.raises(ValueError, match="secret"), phases.during(PhaseKind.START):
        raise ValueError("no secret here")
    assert told[0].error == "no … here"


async def test_a_phase_that_is_cancelled_was_cut_short(phases: Phases, told: list[Phase]) -> None:
    async def wake() -> None:
        with phases.during(PhaseKind.WAKE):
            await asyncio.Event().wait()

    task = asyncio.create_task(wake())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [phase.error for phase in told] == [CUT_SHORT]
