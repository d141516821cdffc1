"""A machine with NVIDIA GPUs that are not there: stands in for the module `pynvml`."""

import queue
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

GIB = 1 << 30

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED = 3, 4, 6, 9
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, GPU_IS_LOST, LIBRARY_MISMATCH = 12, 13, 15, 18
UNINITIALIZED, TIMEOUT = 1, 10


class NVMLError(Exception):
    """As pynvml's: has a value."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


@dataclass
class Card:
    """A GPU, or a MIG instance of one.

    `fails` maps the name of a function to the error that it gives for this card, `*` for every function.
    `readings` maps the name of a function to its answer, instead of that of READINGS; an exception is raised.
    """

    uuid: str = "GPU-0"
    total: int = 80 * GIB
    used: int = 0
    compute: dict[int, int | None] = field(default_factory=dict)
    graphics: dict[int, int | None] = field(default_factory=dict)
    instances: list["Card | None"] | None = None
    fails: dict[str, int] = field(default_factory=dict)
    name: str = ""
    readings: dict[str, object] = field(default_factory=dict)


def fields(memory_c: int | None = 50, tx: int | None = 1000, rx: int | None = 2000) -> list[SimpleNamespace]:
    """Give what nvmlDeviceGetFieldValues says; None is not supported."""
    return [
        SimpleNamespace(
            nvmlReturn=NOT_SUPPORTED if value is None else 0,
            valueType=kind,
            value=SimpleNamespace(**{slot: 7 if value is None else value}),
        )
        for value, kind, slot in ((memory_c, 1, "uiVal"), (tx, 3, "ullVal"), (rx, 3, "ullVal"))
    ]


# What a healthy card says, by function and further arguments.
READINGS: dict[str, object] = {
    "nvmlDeviceGetArchitecture": 9,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37, memory=12),
    "nvmlDeviceGetPowerUsage": 215_500,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetTotalEnergyConsumption": 123_456_000,
    "nvmlDeviceGetTemperatureV(0)": 41,
    "nvmlDeviceGetClockInfo(1)": 1980,
    "nvmlDeviceGetClockInfo(2)": 2619,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x40,
    "nvmlDeviceGetFieldValues([82, 197, 198])": fields(),
    "nvmlDeviceGetTotalEccErrors(0, 0)": 3,
    "nvmlDeviceGetTotalEccErrors(1, 0)": 1,
    "nvmlDeviceGetRemappedRows": (2, 1, 0, 1),
    "nvmlDeviceGetFanSpeed": 30,
}


class FakeNvml:
    """`fails` maps functions without a card to errors; `called` counts calls; `before` runs at each call."""

    NVMLError = NVMLError

    def __init__(self, *cards: Card) -> None:
        self.cards = list(cards)
        self.fails: dict[str, int] = {}
        self.called: list[str] = []
        self.opened = 0
        self.event_sets = 0
        self.xids: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self.before: Callable[[str], None] = lambda name: None

    def _enter(self, name: str, card: Card | None = None) -> None:
        self.called.append(name)
        self.before(name)
        if name not in {"nvmlInit", "nvmlShutdown"} and self.opened == 0:
            raise NVMLError(UNINITIALIZED)
        fails = self.fails if card is None else card.fails
        code = fails.get(name) or fails.get("*")
        if code:
            raise NVMLError(code)

    def nvmlInit(self):
        self._enter("nvmlInit")
        self.opened += 1

    def nvmlShutdown(self):
        self._enter("nvmlShutdown")
        self.opened -= 1

    def nvmlDeviceGetCount(self):
        self._enter("nvmlDeviceGetCount")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        self._enter("nvmlDeviceGetHandleByIndex", self.cards[index])
        return self.cards[index]

    def nvmlDeviceGetUUID(self, card):
        self._enter("nvmlDeviceGetUUID", card)
        return card.uuid

    def nvmlDeviceGetName(self, card):
        self._enter("nvmlDeviceGetName", card)
        return card.name or f"Fake {card.uuid}"

    def nvmlDeviceGetMigMode(self, card):
        self._enter("nvmlDeviceGetMigMode", card)
        return [int(card.instances is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, card):
        self._enter("nvmlDeviceGetMaxMigDeviceCount", card)
        return len(card.instances)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card, index):
        self._enter("nvmlDeviceGetMigDeviceHandleByIndex", card)
        if card.instances[index] is None:
            raise NVMLError(NOT_FOUND)
        return card.instances[index]

    def nvmlDeviceGetMemoryInfo(self, card):
        self._enter("nvmlDeviceGetMemoryInfo", card)
        return SimpleNamespace(total=card.total, used=card.used, free=card.total - card.used)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, card):
        self._enter("nvmlDeviceGetComputeRunningProcesses_v3", card)
        return _listed(card.compute)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, card):
        self._enter("nvmlDeviceGetComputeRunningProcesses_v2", card)
        return _listed(card.compute)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, card):
        self._enter("nvmlDeviceGetGraphicsRunningProcesses_v3", card)
        return _listed(card.graphics)

    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, card):
        self._enter("nvmlDeviceGetGraphicsRunningProcesses_v2", card)
        return _listed(card.graphics)

    def nvmlSystemGetDriverVersion(self):
        self._enter("nvmlSystemGetDriverVersion")
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        self._enter("nvmlSystemGetCudaDriverVersion_v2")
        return 13000

    def nvmlDeviceGetIndex(self, card):
        return self.cards.index(card)

    def nvmlEventSetCreate(self):
        self._enter("nvmlEventSetCreate")
        self.event_sets += 1
        return "events"

    def nvmlEventSetFree(self, events):
        assert events == "events"
        self.event_sets -= 1

    def nvmlDeviceRegisterEvents(self, card, types, events):
        assert (types, events) == (0x8, "events")
        self._enter("nvmlDeviceRegisterEvents", card)

    def nvmlEventSetWait_v2(self, events, timeout_ms):
        assert events == "events"
        self._enter("nvmlEventSetWait_v2")
        try:
            index, xid = self.xids.get(timeout=timeout_ms / 1000)
        except queue.Empty:
            raise NVMLError(TIMEOUT) from None
        return SimpleNamespace(device=self.cards[index], eventType=0x8, eventData=xid)

    def __getattr__(self, name):
        """Give a function that reads a card's READINGS; others are missing, as in an old binding."""
        if not any(key.partition("(")[0] == name for key in READINGS):
            raise AttributeError(name)

        def read(card, *args):
            self._enter(name, card)
            key = f"{name}({', '.join(map(str, args))})" if args else name
            answer = card.readings.get(key, READINGS.get(key))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return read


def _listed(processes):
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes.items()]
