"""What machine this is, for `/api/hardware`. What cannot be told for certain is None; accelerators come with gpu.py."""

import platform
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from llmswap import __version__

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
