"""Fault rows of ending that need the whole program."""

import asyncio
import signal
import time

import aiohttp
import pytest

from tests.dialogue import ask, finish, listening
from tests.stack import fake, until

ENDLESS = {"itl": 20, "output_tokens": "exact:100000"}


async def test_F084_sigterm_lets_streams_end_then_stops_everything(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a", itl=20, output_tokens="exact:60")}}})
    async with listening(http, program, "a") as stream:
        await stream.hear(1)
        program.terminate()
        await until(lambda: "draining" in program.log_text(), "it drains")
        try:
            status, answer = await ask(http, program, "a")
        except aiohttp.ClientConnectionError:
            pass  # no longer listening: just as good
        else:
            assert status == 503, answer
        await stream.hear_out()
    assert stream.complete
    assert stream.tokens == 60
    assert await program.exited(5) == 0
    assert program.family() == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=["TERM TERM", "TERM INT"])
async def test_F085_second_signal_ends_it_at_once(stack, http, second):
    program = stack.start({"models": {"a": {"cmd": fake("a", "--ignore-sigterm", **ENDLESS)}}})
    async with listening(http, program, "a") as stream:
        await stream.hear(1)
        program.terminate()
        await until(lambda: "draining" in program.log_text(), "it drains")
        heard = stream.tokens
        await stream.hear(heard + 3)
        began_s = time.monotonic()
        program.terminate(second)
        listener = asyncio.create_task(stream.hear_out())
        code = await program.exited(5)
        took_s = time.monotonic() - began_s
        await asyncio.gather(listener, return_exceptions=True)
        await finish(listener)
    assert took_s <= 3
    assert code == 1
    assert not stream.complete
    assert program.family() == []
