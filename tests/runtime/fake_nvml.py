"""A machine with NVIDIA GPUs that are not there: stands in for the module `pynvml`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

GIB = 1 << 30

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED = 3, 4, 6, 9
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, GPU_IS_LOST, LIBRARY_MISMATCH = 12, 13, 15, 18
UNINITIALIZED = 1


class NVMLError(Exception):
    """As pynvml's: has a value."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


@dataclass
class Card:
    """A GPU, or a MIG instance of one.

    `fails` maps the name of a function to the error that it gives for this card, `*` for every function.
    """

    uuid: str = "GPU-0"
    total: int = 80 * GIB
    used: int = 0
    compute: dict[int, int | None] = field(default_factory=dict)
    graphics: dict[int, int | None] = field(default_factory=dict)
    instances: list["Card | None"] | None = None
    fails: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """`fails` maps functions without a card to errors; `called` counts calls; `before` runs at each call."""

    NVMLError = NVMLError

    def __init__(self, *cards: Card) -> None:
        self.cards = list(cards)
        self.fails: dict[str, int] = {}
        self.called: list[str] = []
        self.opened = 0
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
        return f"Fake {card.uuid}"

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


def _listed(processes):
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes.items()]
