"""Fault rows of llmswap's own inside: a scheduler that fails, an event loop that is blocked. Real processes throughout.

What breaks it is a hook that its interpreter imports at its start (`sitecustomize`), and a file that it looks for.
"""

import asyncio
import json
import re
import textwrap
import time
from pathlib import Path

import aiohttp
import pytest

from llmswap.app import EXIT_FATAL
from tests.dialogue import ask, listening
from tests.stack import Program, Stack, fake, until

ROOT = Path(__file__).parents[2]
SCHEDULER_RAISES = """
from llmswap.core.scheduler import Scheduler
handle = Scheduler.handle
def broken(self, now_s, event):
    if os.path.exists(TRIGGER):
        raise LookupError("a bug of the scheduler")
    return handle(self, now_s, event)
Scheduler.handle = broken
"""
VERSION_BLOCKS = """
import time
from pathlib import Path
from llmswap.proxy import admin, health
from llmswap.runtime import heartbeat
heartbeat.BEAT_S, health.LAG_MAX_S = 1.0, 0.4
version = admin.version
async def blocking(request):
    Path(TRIGGER).touch()
    time.sleep(2)
    return await version(request)
admin.version = blocking
"""


class Hook:
    """Code inside every llmswap of a test; `trigger` is the file that it looks for."""

    def __init__(self, stack: Stack, folder: Path, code: str) -> None:
        self.trigger = folder / "trigger"
        place = folder / "hook"
        place.mkdir()
        # Only in llmswap itself: its upstreams are Python, too.
        text = f"import os, sys\nTRIGGER = {str(self.trigger)!r}\nif 'serve' in sys.orig_argv:\n"
        (place / "sitecustomize.py").write_text(text + textwrap.indent(code, "    "))
        stack.environ["PYTHONPATH"] = f"{place}:{ROOT}"


async def answer_of(http: aiohttp.ClientSession, program: Program, path: str) -> tuple[int, str]:
    async with http.get(program.url + path) as answer:
        return answer.status, await answer.text()


@pytest.mark.tracebacks
async def test_F074_a_scheduler_that_fails_ends_the_program_with_70_and_everybody_is_told(stack, http, tmp_path):
    """Fail-stop: no client is left waiting for a scheduler that is no more, and no upstream outlives it."""
    hook = Hook(stack, tmp_path, SCHEDULER_RAISES)
    slow = fake("a", itl=20, output_tokens="exact:5000")
    program = stack.start({"models": {"a": {"cmd": slow}, "b": {"cmd": fake("b")}}})
    async with listening(http, program, "a") as busy:
        await busy.hear(1)
        queued = asyncio.create_task(ask(http, program, "b"))

        async def waits() -> bool:
            return await program.metric("llmswap_queue_depth", model="b") == 1

        await until(waits, "b's request waits")
        upstream = program.upstream("a")
        hook.trigger.touch()
        began_s = time.monotonic()
        for status, answer in (await ask(http, program, "a"), await queued):
            assert (status, answer["error"]["message"]) == (503, "the scheduler has failed and llmswap is stopping")
        assert await program.exited(within_s=10) == EXIT_FATAL
        assert time.monotonic() - began_s < 4, "nobody is waited for who could not be served anyway"
        with pytest.raises(aiohttp.ClientError):
            await busy.hear_out()
        assert not busy.complete
    assert not upstream.is_running()
    assert program.family() == []
    assert "can no longer be trusted" in program.log_text()
    assert "a bug of the scheduler" in program.log_text()


async def test_F075_a_blocked_event_loop_turns_health_red_and_green_again(stack, http, tmp_path):
    """With the limit of 10 s cut to 0.4 s; whoever asks while it is blocked is answered late, and told why."""
    hook = Hook(stack, tmp_path, VERSION_BLOCKS)
    program = stack.start({"models": {"a": {"cmd": fake("a")}}})
    assert (await ask(http, program, "a"))[0] == 200
    pid = program.upstream_pid("a")
    for path in ("/health", "/wol-health", "/ready"):
        assert (await answer_of(http, program, path))[0] == 200

    blocking = asyncio.create_task(answer_of(http, program, "/api/version"))
    await until(hook.trigger.exists, "the event loop is blocked")
    began_s = time.monotonic()
    health, ready = await asyncio.gather(answer_of(http, program, "/health"), answer_of(http, program, "/ready"))
    assert time.monotonic() - began_s > 0.4, "it was answered meanwhile"
    assert health[0] == ready[0] == 503
    assert re.fullmatch(r"the event loop was blocked for [12] s", health[1])
    assert json.loads(ready[1]) == {"ready": False, "reasons": [health[1]]}
    assert (await blocking)[0] == 200

    async def green() -> bool:
        return [(await answer_of(http, program, path))[0] for path in ("/health", "/ready")] == [200, 200]

    await until(green, "its next beats are in time", 5)
    assert (await ask(http, program, "a"))[0] == 200
    assert program.upstream_pid("a") == pid, "nobody was stopped for it"
