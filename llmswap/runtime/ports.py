"""Whose port is it: free or taken, and by whom. Reads /proc/net and /proc/*/fd."""

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llmswap.runtime.tree import describe

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_LISTEN = "0A"
_WORD = 4
_PICKS = 100
_HIGHEST = 65535


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket."""

    address: IpAddress
    inode: int
    uid: int


def is_free(port: int) -> bool:
    """Whether nobody listens on the port, on any address of this machine, and somebody could."""
    return port <= _HIGHEST and all(_can_bind(family, port) for family in (socket.AF_INET, socket.AF_INET6))


def _can_bind(family: socket.AddressFamily, port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections still closing down do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def pick_free(avoid: Iterable[int]) -> int:
    """Let the system choose a free port that is not in `avoid`.

    Raises:
        OSError: It has none to give.
    """
    taken = set(avoid)
    for _ in range(_PICKS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in taken and is_free(port):
            return port
    raise OSError(errno.EADDRNOTAVAIL, "no free port found")


def is_local(address: IpAddress) -> bool:
    """Whether an address belongs to this machine."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def listeners(port: int) -> list[Listener]:
    """Find all sockets that listen on the port."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            address, _, hex_port = fields[1].partition(":")
            if fields[3] == _LISTEN and int(hex_port, 16) == port:
                found.append(Listener(_address(address), int(fields[9]), int(fields[7])))
    return found


def _address(text: str) -> IpAddress:
    """Read an address of /proc/net: 32-bit words, each in the byte order of the machine (little-endian here)."""
    raw = bytes.fromhex(text)
    return _plain(ipaddress.ip_address(b"".join(raw[i : i + _WORD][::-1] for i in range(0, len(raw), _WORD))))


def _plain(address: IpAddress) -> IpAddress:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def answering(port: int, address: IpAddress) -> list[Listener]:
    """Find who would take a connection to this address: the most specific listeners (several: SO_REUSEPORT)."""
    found = listeners(port)
    wildcards = ["0.0.0.0", "::"] if address.version == 4 else ["::"]  # noqa: S104  compared with, not bound to
    for candidate in (address, *map(ipaddress.ip_address, wildcards)):
        if exact := [listener for listener in found if listener.address == _plain(candidate)]:
            return exact
    return []


def foreigner(port: int, address: IpAddress, ours: Iterable[int]) -> str | None:
    """Name who answers at an address if it is none of these pids; None if it is one. Blocking: for a thread."""
    candidates = answering(port, address)
    if not candidates:
        return "a process outside of this network namespace"
    mine, hidden = _sockets(ours)
    strangers = [listener for listener in candidates if listener.inode not in mine]
    for listener in strangers:
        owner = _owner(listener.inode)
        if owner is not None:
            return describe(owner)
    if not strangers or hidden:  # a member whose files we may not see (it changed its user) gets the benefit of doubt
        return None
    return f"a process of user {strangers[0].uid}"


def holder(port: int) -> str | None:
    """Name who listens on a port, on any address. Blocking: for a thread."""
    for listener in listeners(port):
        owner = _owner(listener.inode)
        return describe(owner) if owner is not None else f"a process of user {listener.uid}"
    return None


def _sockets(pids: Iterable[int]) -> tuple[set[int], bool]:
    """Give the inodes of the sockets these processes hold, and whether some of them could not be read."""
    inodes: set[int] = set()
    hidden = False
    for pid in pids:
        try:
            inodes |= _sockets_of(pid)
        except PermissionError:
            hidden = True
        except OSError:
            continue
    return inodes, hidden


def _sockets_of(pid: int) -> set[int]:
    inodes = set()
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):  # noqa: PTH208  no Path objects wanted: many files
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    return inodes


def _owner(inode: int) -> int | None:
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                if inode in _sockets_of(int(name)):
                    return int(name)
    return None
