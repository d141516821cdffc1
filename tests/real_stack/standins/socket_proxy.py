#!/opt/llmswap/bin/python -S
"""Stand-in for wollomatic/socket-proxy: passes on to Docker's socket what its flags allow, and answers 403 to the rest.

As the real one: a pattern must match the whole path, queries do not count, `-allowfrom` is a name to look up, and
bind mounts must lie below `-allowbindmountfrom`. Called as `healthcheck`, it asks the running one.
"""

import asyncio
import contextlib
import json
import re
import socket
import sys
from pathlib import Path

PORT = 2375
SOCKET = "/var/run/docker.sock"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nForbidden\n"


class Flags:
    """What the command line allows."""

    def __init__(self, words: list[str]) -> None:
        self.patterns: dict[str, list[str]] = {}
        self.origin, self.mounts = "", ""
        for word in words:
            name, _, value = word.lstrip("-").partition("=")
            if name == "allowfrom":
                self.origin = value
            elif name == "allowbindmountfrom":
                self.mounts = value
            elif match := re.fullmatch(r"allow([A-Z]+)", name):
                self.patterns.setdefault(match[1], []).append(value)
            elif name not in {"listenip", "allowhealthcheck", "watchdoginterval", "stoponwatchdog"}:
                sys.exit(f"unknown flag {word}")

    def allow(self, method: str, path: str, body: bytes) -> bool:
        """Decide on a request."""
        plain = path.partition("?")[0]
        if not any(re.fullmatch(pattern, plain) for pattern in self.patterns.get(method, ())):
            return False
        if not (self.mounts and plain.endswith("/containers/create")):
            return True
        host = json.loads(body).get("HostConfig") or {}
        sources = [bind.partition(":")[0] for bind in host.get("Binds") or ()]
        sources += [mount["Source"] for mount in host.get("Mounts") or () if mount.get("Type") == "bind"]
        return all(Path(source).is_relative_to(self.mounts) for source in sources)

    def knows(self, peer: str) -> bool:
        """Tell whether a client is the one that may ask."""
        with contextlib.suppress(OSError):
            return peer in {info[4][0] for info in socket.getaddrinfo(self.origin, None)}
        return False


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and pass the end on."""
    with contextlib.suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def serve(flags: Flags, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take one request of a connection; an upgraded one goes on in both directions."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.partition(b"\r\n")[0].decode().split(" ")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if not (flags.knows(writer.get_extra_info("peername")[0]) and flags.allow(method, path, body)):
            print(f"forbidden: {method} {path}", flush=True)
            writer.write(FORBIDDEN)
            return
        if not re.search(rb"(?i)\r\nconnection: *upgrade", head):
            head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)[:-2] + b"Connection: close\r\n\r\n"
        inner, outer = await asyncio.open_unix_connection(SOCKET)
        outer.write(head + body)
        asking = asyncio.create_task(pump(reader, outer))
        await pump(inner, writer)
        asking.cancel()
        outer.close()
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Listen."""
    flags = Flags(sys.argv[1:])
    print("stand-in for socket-proxy", flush=True)
    async with await asyncio.start_server(lambda *ends: serve(flags, *ends), "", PORT) as server:
        await server.serve_forever()


if __name__ == "__main__":
    if Path(sys.argv[0]).name == "healthcheck":
        socket.create_connection(("127.0.0.1", PORT), 4).close()
    else:
        asyncio.run(main())
