"""Lives of upstreams, with real processes."""

import os
import signal
import time

import psutil

from llmswap.core.events import StartFailed, UpstreamExited, UpstreamReady, UpstreamStopped
from llmswap.core.fleet import ModelId
from tests.runtime.children import server, sh
from tests.runtime.rig import M, Rig, free_port, until


async def test_start_ready_stop(rig: Rig):
    rig.start(server())
    ready = await rig.next(UpstreamReady)
    assert (ready.model, ready.generation) == (M, 1)
    assert rig.url().startswith("http://127.0.0.1:")
    pid = rig.pid()
    rig.stop()
    await rig.next(UpstreamStopped)
    assert not psutil.pid_exists(pid)
    assert rig.supervisor.pid(M) is None
