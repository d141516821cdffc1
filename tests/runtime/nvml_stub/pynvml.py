"""Stands in for NVIDIA's binding in a real llmswap: put this folder first on PYTHONPATH, and the repository next.

What the driver knows is the ledger of the simulated engines (NVML_STUB_LEDGER); what ails it, a word in a file
(NVML_STUB_FAULT), read at each call: `hang`, `lost`, `missing`, or `hidden` (processes have the pids of another world).
With `xid` it reports one such error.
Versions differ in what they call used; the fault may name one: `apart` leaves its reserve out, `moving` has it grow
when fewer than two processes are there. Otherwise the reserve is in it, and stays as it is.
With `shared` it is a GPU without memory of its own, as on GB10: it takes the host's, and has no total.
"""

import os
import time
from pathlib import Path

from llmswap.fake_upstream.gpus import GIB, Gpu, read
from tests.runtime.fake_nvml import GPU_IS_LOST, LIBRARY_NOT_FOUND, NOT_SUPPORTED, Card, FakeNvml, NVMLError

RESERVED_BYTES = GIB // 2  # the driver's own
MOVING_BYTES = 48 << 20  # of it
ELSEWHERE = 1 << 22  # above every pid of this machine
_AILMENTS = {"lost": GPU_IS_LOST, "missing": LIBRARY_NOT_FOUND}
_LEDGER, _FAULT = Path(os.environ["NVML_STUB_LEDGER"]), Path(os.environ["NVML_STUB_FAULT"])


def _fault() -> str:
    return _FAULT.read_text().strip() if _FAULT.exists() else ""


def _reserve(gpu: Gpu) -> int:
    """What of the driver's own it counts as used."""
    if _fault() == "apart":
        return 0
    return RESERVED_BYTES + (MOVING_BYTES if _fault() == "moving" and len(gpu.by_pid) < 2 else 0)


class _Machine(FakeNvml):
    reported = False

    def _enter(self, name: str, card: Card | None = None) -> None:
        while _fault() == "hang":
            time.sleep(0.02)
        if code := _AILMENTS.get(_fault()):
            raise NVMLError(code)
        super()._enter(name, card)

    def nvmlEventSetWait_v2(self, events, timeout_ms):
        if _fault() == "xid" and not self.reported:
            self.reported = True
            self.xids.put((0, 79))
        return super().nvmlEventSetWait_v2(events, timeout_ms)

    def nvmlDeviceGetCount(self):
        shift = ELSEWHERE if _fault() == "hidden" else 0
        fails = {"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED} if _fault() == "shared" else {}
        self.cards = [
            Card(
                f"GPU-{gpu.index}",
                gpu.total_bytes + RESERVED_BYTES,
                gpu.used_bytes + _reserve(gpu),
                {pid + shift: used for pid, used in gpu.by_pid.items()},
                fails=fails,
            )
            for gpu in read(_LEDGER).gpus
        ]
        self.called.clear()
        return super().nvmlDeviceGetCount()


_machine = _Machine()


def __getattr__(name: str):
    return getattr(_machine, name)
