"""Reads AMD's GPUs from sysfs, blocking: no library of AMD's is needed. Who may wait for that: `gpu.py`."""

import contextlib
import re
from collections.abc import Collection
from pathlib import Path

from llmswap.runtime.gpu import Gpu, Maker, Sample, Vitals

_CARDS = Path("/sys/class/drm")
_PROC = Path("/proc")
_DRIVER_VERSION = Path("/sys/module/amdgpu/version")
_AMD = "0x1002"
_PWM_MOST = 255
_KIB = 1024
_CLOCKS = {"sm": "sclk", "memory": "mclk"}
_TEMPERATURES = {"gpu": "edge", "memory": "mem"}


class AmdReader:
    """A `gpu.Reader` for the driver amdgpu.

    The kernel does not say who uses a card, only what each process has open; so `by_pid` knows the processes that it
    was told to look at, and no others.

    Attributes:
        pids: Whom to look at. Replaced from outside, as a whole.
    """

    def __init__(self, cards: Path = _CARDS, proc: Path = _PROC, version: Path = _DRIVER_VERSION) -> None:
        self._proc = proc
        self._maker = Maker("amd", _text(version))
        self._devices = [
            device
            for card in sorted(cards.glob("card*"), key=_number)
            if re.fullmatch(r"card\d+", card.name) and _text((device := card / "device") / "vendor") == _AMD
        ]
        self.pids: Collection[int] = ()

    @property
    def present(self) -> bool:
        """Whether there is any card; they are looked for once."""
        return bool(self._devices)

    def __call__(self) -> Sample:
        """Read all cards."""
        shares = self._shares()
        gpus = tuple(self._read(index, device, shares) for index, device in enumerate(self._devices))
        return Sample(gpus) if gpus else Sample(problem="no AMD GPU here", driver=False)

    def _read(self, index: int, device: Path, shares: dict[str, dict[int, int]]) -> Gpu:
        used = _integer(device / "mem_info_vram_used")
        address = device.resolve().name  # 0000:03:00.0
        uuid = _text(device / "unique_id") or address
        problem = "" if used is not None else f"AMD GPU {index}: the driver does not answer"
        return Gpu(
            index,
            uuid if used is not None else "",
            _text(device / "product_name") or f"AMD {_text(device / 'device')}",
            total_bytes=_integer(device / "mem_info_vram_total"),
            used_bytes=used,
            by_pid=shares.get(address, {}),
            problem=problem,
            maker=self._maker,
            vitals=_vitals(device),
        )

    def _shares(self) -> dict[str, dict[int, int]]:
        """Sum device memory by card and process. One client may be open many times and counts once."""
        found: dict[str, dict[int, int]] = {}
        clients = set()
        for pid in self.pids:
            for info in _listed(self._proc / str(pid) / "fdinfo"):
                text = _text(info)
                if "drm-memory-vram" not in text:
                    continue
                entries = dict(re.findall(r"^(drm-[\w-]+):\s*(\S+)", text, re.MULTILINE))
                client = (entries.get("drm-pdev", ""), entries.get("drm-client-id", ""))
                if client not in clients:
                    clients.add(client)
                    mine = found.setdefault(client[0], {})
                    mine[pid] = mine.get(pid, 0) + int(entries["drm-memory-vram"]) * _KIB
        return found


def _vitals(device: Path) -> Vitals:
    sensors = next(iter(_listed(device / "hwmon")), device / "hwmon")
    busy = _integer(device / "gpu_busy_percent")
    temperatures = {name: _labelled(sensors, "temp", label) for name, label in _TEMPERATURES.items()}
    clocks = {name: _labelled(sensors, "freq", label) for name, label in _CLOCKS.items()}
    power = next(
        (found for name in ("average", "input") if (found := _integer(sensors / f"power1_{name}")) is not None), None
    )
    errors = dict(re.findall(r"^([uc]e): (\d+)", _text(device / "ras" / "umc_err_count"), re.MULTILINE))
    kinds = {"corrected": "ce", "uncorrected": "ue"}
    return Vitals(
        utilization=None if busy is None else busy / 100,
        power_w=_scaled(power, 1e6),
        power_limit_w=_scaled(_integer(sensors / "power1_cap"), 1e6),
        energy_j=_scaled(_integer(sensors / "energy1_input"), 1e6),
        temperatures_c={name: value / 1000 for name, value in temperatures.items() if value is not None},
        clocks_hz={name: float(value) for name, value in clocks.items() if value is not None},
        ecc_errors={name: int(errors[kind]) for name, kind in kinds.items() if kind in errors},
        fan_ratio=_scaled(_integer(sensors / "pwm1"), _PWM_MOST),
    )


def _labelled(sensors: Path, kind: str, label: str) -> int | None:
    for path in sorted(sensors.glob(f"{kind}*_label")):
        if _text(path) == label:
            return _integer(path.with_name(path.name.replace("_label", "_input")))
    return None


def _scaled(value: int | None, by: float) -> float | None:
    return None if value is None else value / by


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # not there, not ours to read, or a card that is asleep
        return ""


def _integer(path: Path) -> int | None:
    text = _text(path)
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _listed(folder: Path) -> list[Path]:
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = sorted(folder.iterdir())
    return found


def _number(card: Path) -> tuple[int, str]:
    digits = re.search(r"\d+", card.name)
    return (int(digits[0]) if digits else 0, card.name)
