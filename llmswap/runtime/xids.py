"""Errors that NVIDIA's driver reports by itself (XIDs), heard in a thread of their own."""
# ruff: noqa: N802, N815, D102  the Protocol spells NVIDIA's names, and NVIDIA's manual says what they do

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from llmswap.runtime.machine import Xid
from llmswap.runtime.nvml_sensors import Handle

log = logging.getLogger(__name__)

# So long one call waits for an event; the thread ends, or lets go of the driver, at most this much later.
WAIT_MS = 500
_TIMEOUT = 10
_XID_EVENT = 0x8
# What points to the hardware. They stand at 0 from the beginning: the first one would show as no increase otherwise.
HARDWARE = (48, 62, 64, 74, 79, 95, 119, 120)


class _Event(Protocol):
    device: Handle
    eventData: int


class Events(Protocol):
    """What we use of the module `pynvml`. Each function may raise NVMLError, which has a `value`."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Handle: ...
    def nvmlDeviceGetIndex(self, handle: Handle, /) -> int: ...
    def nvmlEventSetCreate(self) -> object: ...
    def nvmlEventSetFree(self, events: object, /) -> None: ...
    def nvmlDeviceRegisterEvents(self, handle: Handle, types: int, events: object, /) -> None: ...
    def nvmlEventSetWait_v2(self, events: object, timeout_ms: int, /) -> _Event: ...


class XidWatch:
    """Listens while the driver is well; one that is not is let go, so that its reader can open it anew.

    Args:
        load: Gives the module.
        well: Whether the reader finds the driver in order. Called in the thread.
    """

    def __init__(
        self, load: Callable[[], Events], well: Callable[[], bool], clock: Callable[[], float] = time.time
    ) -> None:
        self._load = load
        self._well = well
        self._clock = clock
        self._seen: dict[tuple[str, int], Xid] = {}
        self._heard = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen; nothing happens if that was begun before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gpu events", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let the thread end, within WAIT_MS."""
        self._ended.set()

    def seen(self) -> tuple[Xid, ...] | None:
        """Give what was heard; None if no GPU tells."""
        return tuple(sorted(self._seen.copy().values(), key=lambda xid: (xid.gpu, xid.code))) if self._heard else None

    def _run(self) -> None:
        pause_s = WAIT_MS / 1000
        while not self._ended.is_set():
            if self._well():
                try:
                    if not self._listen(self._load()):
                        log.info("no GPU tells of XID errors here")
                        return
                except Exception as error:  # noqa: BLE001  a vendor's binding may raise anything
                    log.debug("listening for XID errors failed: %s: %s", type(error).__name__, error)
                    pause_s = min(60.0, pause_s * 2)
            self._ended.wait(pause_s)

    def _listen(self, nvml: Events) -> bool:
        """Listen until the driver is not well, or it shall end. False if no GPU tells."""
        with _opened(nvml), _event_set(nvml) as events:
            told = [index for index in range(nvml.nvmlDeviceGetCount()) if _register(nvml, index, events)]
            for index in told:
                for code in HARDWARE:
                    self._seen.setdefault((str(index), code), Xid(str(index), code))
            self._heard = self._heard or bool(told)
            while told and self._well() and not self._ended.is_set():
                try:
                    event = nvml.nvmlEventSetWait_v2(events, WAIT_MS)
                except nvml.NVMLError as error:
                    if getattr(error, "value", 0) != _TIMEOUT:
                        raise
                else:
                    self._note(str(nvml.nvmlDeviceGetIndex(event.device)), int(event.eventData))
        return bool(told)

    def _note(self, gpu: str, code: int) -> None:
        known = self._seen.get((gpu, code), Xid(gpu, code))
        if known.last is None:
            log.warning("GPU %s reported XID %d; further ones are only counted", gpu, code)
        self._seen[gpu, code] = known.again(self._clock())


@contextlib.contextmanager
def _opened(nvml: Events) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


@contextlib.contextmanager
def _event_set(nvml: Events) -> Iterator[object]:
    events = nvml.nvmlEventSetCreate()
    try:
        yield events
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlEventSetFree(events)


def _register(nvml: Events, index: int, events: object) -> bool:
    try:
        nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(index), _XID_EVENT, events)
    except nvml.NVMLError:
        return False
    return True
