"""What machine this is, and what its memory is used for. What cannot be told for certain is None."""

import contextlib
import platform
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from llmswap import __version__

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_KIB = 1024
_SCHEMA_VERSION = 1
_CPUINFO = Path("/proc/cpuinfo")
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_CONTAINER_MARKS = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}


def snapshot() -> dict[str, Any]:
    """Describe the machine in llama-swap's form. Blocking, a few milliseconds: not for every request."""
    machine = platform.machine()
    return {
        "schema_version": _SCHEMA_VERSION,
        "captured_at": datetime.now().astimezone().isoformat(),
        "capture": {
            "scope": "inference_host",
            "method": "detected",
            "detector": {"name": "llmswap", "version": __version__},
        },
        "architecture": {"name": _ARCHITECTURES.get(machine.lower()), "raw_name": machine},
        "operating_system": _operating_system(),
        "environment": _environment(),
        "cpu": _cpu(),
        "memory": {"capacity_bytes": psutil.virtual_memory().total},
        "accelerators": None,
    }


def resident_bytes(pids: Iterable[int], proc: Path = _PROC) -> int | None:
    """Sum the host memory that these processes keep, pages of mapped files left out: those can be dropped at any time.

    Memory that several of them share counts once for each, so it is an upper bound. (PSS would divide it, but takes
    11 ms per GiB.)

    Returns:
        None if none of them can be read.
    """
    kib = []
    for pid in pids:
        with contextlib.suppress(OSError):  # gone meanwhile
            text = (proc / str(pid) / "status").read_text(errors="replace")
            kib.append(sum(map(int, re.findall(r"^Rss(?:Anon|Shmem):\s*(\d+) kB", text, re.MULTILINE))))
    return sum(kib) * _KIB if kib else None


def free_bytes(cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Tell how much memory can still be had without swapping: of the machine, and of our cgroup if it has a limit."""
    return min([psutil.virtual_memory().available, *_cgroup_rooms(cgroups, proc)])


def _cgroup_rooms(cgroups: Path, proc: Path) -> Iterable[int]:
    """Give what each limit above us (cgroup v2) leaves. Upstreams are in our cgroup."""
    with contextlib.suppress(OSError):
        own = re.search(r"^0::/(.*)$", (proc / "self" / "cgroup").read_text(), re.MULTILINE)
        folder = cgroups / (own[1] if own else "")
        for group in (folder, *folder.parents):
            if group.is_relative_to(cgroups):
                with contextlib.suppress(OSError, ValueError):  # no such file at the root; `max` is no number
                    limit = int((group / "memory.max").read_text())
                    cache = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
                    used = int((group / "memory.current").read_text()) - (int(cache[1]) if cache else 0)
                    yield max(0, limit - used)


def _operating_system() -> dict[str, str | None]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        "family": platform.system().lower() or None,
        "name": release.get("NAME"),
        "version": release.get("VERSION_ID"),
        "kernel": platform.release() or None,
    }


def _environment() -> dict[str, str | None]:
    for mark, name in _CONTAINER_MARKS.items():
        if Path(mark).exists():
            return {"kind": "container", "name": name, "version": None}
    if "microsoft" in platform.release().lower():
        return {"kind": "wsl", "name": None, "version": None}
    return {"kind": None, "name": None, "version": None}


def _cpu() -> dict[str, str | int | None]:
    text = _CPUINFO.read_text(errors="replace") if _CPUINFO.exists() else ""
    sockets = set(_fields(text, "physical id"))
    return {
        "vendor": next(iter(_fields(text, "vendor_id")), None),
        "model": next(iter(_fields(text, "model name")), None),
        "socket_count": len(sockets) or None,
        "physical_core_count": psutil.cpu_count(logical=False),
        "logical_thread_count": psutil.cpu_count(),
    }


def _fields(cpuinfo: str, name: str) -> list[str]:
    return re.findall(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
