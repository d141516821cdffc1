"""What upstreams and llmswap said lately: rings of bytes that are written without ever waiting for a reader."""

import asyncio
import logging
import threading
from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Self

from llmswap.config.settings import LogSettings
from llmswap.core.fleet import ModelId
from llmswap.runtime.logevents import ENCODERS, harmless, lines
from llmswap.runtime.logtime import stamper
from llmswap.runtime.redaction import redact, redact_command
from llmswap.runtime.stdout import Gap, StdoutWriter, gap

RING_BYTES = 100 * 1024
SUBSCRIBER_BYTES = 256 * 1024

_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR"}  # llama-swap's names for them


class Subscription:
    """The bytes of a ring from now on, for one reader.

    Iterating gives what has gathered since the last step. A reader that falls behind by more than SUBSCRIBER_BYTES
    loses what comes next and finds a line saying how much.
    """

    def __init__(self, ring: "LogRing", head: bytes) -> None:
        self._ring = ring
        self._pending = bytearray(head)
        self._dropped = 0
        self._closed = False
        self._poked = False
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    def offer(self, data: bytes) -> None:
        """Take bytes from the ring; called under its lock, from any thread."""
        if self._dropped or len(self._pending) + len(data) > SUBSCRIBER_BYTES:
            self._dropped += len(data)
            self._ring.dropped_bytes += len(data)
        else:
            self._pending += data
        self._poke()

    def end(self) -> None:
        """Let the reader finish what is pending, then stop."""
        self._closed = True
        self._poke()

    def _poke(self) -> None:
        if not self._poked and not self._loop.is_closed():
            self._poked = True
            self._loop.call_soon_threadsafe(self._wake.set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ring.forget(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not (data := self._take()):
            if self._closed:
                raise StopAsyncIteration
            await self._wake.wait()
        return data

    def _take(self) -> bytes:
        with self._ring.lock:
            self._poked = False
            self._wake.clear()
            data = bytes(self._pending)
            self._pending.clear()
            if self._dropped:
                data += f"\n— {self._dropped} bytes dropped —\n".encode()
                self._dropped = 0
        return data


class LogRing:
    """The last bytes written, and whoever follows them. Writing is O(bytes) and never waits.

    Attributes:
        dropped_bytes: What readers did not get so far because they were too slow, all of them together.
    """

    def __init__(self, capacity_bytes: int = RING_BYTES) -> None:
        self.dropped_bytes = 0
        self.lock = threading.Lock()
        self._capacity = capacity_bytes
        self._held = bytearray()
        self._subscribers: set[Subscription] = set()

    def write(self, data: bytes) -> None:
        """Append; the oldest bytes give way. Safe from any thread."""
        with self.lock:
            self._held += data[-self._capacity :]
            if len(self._held) > self._capacity:
                del self._held[: -self._capacity]
            for subscriber in self._subscribers:
                subscriber.offer(data)

    def history(self) -> bytes:
        """Give what is held."""
        with self.lock:
            return bytes(self._held)

    def subscribe(self, *, history: bool) -> Subscription:
        """Follow the ring: `with ring.subscribe(history=True) as lines: async for data in lines: ...`."""
        with self.lock:
            subscription = Subscription(self, bytes(self._held) if history else b"")
            self._subscribers.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Stop feeding a subscription."""
        with self.lock:
            self._subscribers.discard(subscription)

    def end(self) -> None:
        """Let every reader finish; writing goes on."""
        with self.lock:
            for subscriber in self._subscribers:
                subscriber.end()
            self._subscribers.clear()


class LogBook:
    """All rings: the proxy's own lines, all upstream output, each model's, and the combined one.

    Args:
        stdout: Where `to_stdout` sends lines; None for nowhere.

    Attributes:
        proxy: llmswap's own log lines.
        upstream: Output of all upstreams, as it came.
        combined: What `logToStdout` selects of the two.
    """

    def __init__(
        self, settings: LogSettings | None = None, *, secrets: Iterable[str] = (), stdout: StdoutWriter | None = None
    ) -> None:
        self.proxy = LogRing()
        self.upstream = LogRing()
        self.combined = LogRing()
        self._models: dict[ModelId, LogRing] = {}
        self._model_secrets: dict[ModelId, tuple[str, ...]] = {}
        self._stdout = stdout
        self._unfinished = False
        self.configure(settings or LogSettings(), secrets)

    def configure(self, settings: LogSettings, secrets: Iterable[str], tell_gap: Gap = gap) -> None:
        """Take new settings, the secrets (API keys) to hide in proxy lines and tails, and how stdout tells of a gap."""
        if self._stdout is not None:
            self._stdout.tell_gap = tell_gap
        self._combine_proxy = settings.to_stdout in {"proxy", "both"}
        self._combine_upstream = settings.to_stdout in {"upstream", "both"}
        self._secrets = tuple(secrets)

    def model(self, model: ModelId) -> LogRing:
        """Give the ring of one model; made when first asked for, kept over restarts."""
        ring = self._models.get(model)
        if ring is None:
            ring = self._models[model] = LogRing()
        return ring

    def write_upstream(self, model: ModelId, data: bytes) -> None:
        """Note what an upstream printed, verbatim."""
        self.model(model).write(data)
        self.upstream.write(data)
        if self._combine_upstream:
            self._combine(data)
            self._unfinished = not data.endswith(b"\n")

    def write_proxy(self, data: bytes, *, apart: bool = False) -> None:
        """Note lines of llmswap's own; `apart`: not behind the beginning of an upstream's line."""
        self.proxy.write(data)
        if self._combine_proxy:
            self._combine(b"\n" + data if apart and self._unfinished else data)
            self._unfinished = False

    def conceal(self, model: ModelId, secrets: Iterable[str]) -> None:
        """Name the secrets of a model's command and environment, for its tails."""
        self._model_secrets[model] = tuple(secrets)

    def hide(self, text: str, model: ModelId | None = None) -> str:
        """Take known secrets out of a text; also those of a model, if one is named."""
        secrets = self._secrets if model is None else self._secrets + self._model_secrets.get(model, ())
        return redact(text, secrets)

    def tail_lines(self, model: ModelId, count: int) -> list[str]:
        """Give the last non-empty lines a model printed, without secrets."""
        tail = self.model(model).history()[-16 * 1024 :].decode(errors="replace")
        lines = [line.rstrip() for line in tail.splitlines() if line.strip()]
        return [self.hide(redact_command(line), model) for line in lines[-count:]]

    @property
    def dropped_bytes(self) -> int:
        """What readers of any ring did not get so far because they were too slow."""
        return sum(ring.dropped_bytes for ring in self._rings())

    def end(self) -> None:
        """End every subscription, so that streams of log lines finish."""
        for ring in self._rings():
            ring.end()

    def _rings(self) -> tuple[LogRing, ...]:
        return (self.proxy, self.upstream, self.combined, *self._models.values())

    def _combine(self, data: bytes) -> None:
        self.combined.write(data)
        if self._stdout is not None:
            self._stdout.write(data)


class ProxyLogHandler(logging.Handler):
    """Sends log records to the book: as llama-swap writes them, `[LEVEL] text`, or the events that they tell.

    In the former each line of a record gets the level, and the time if asked for, so that it always tells what it is.
    """

    def __init__(self, book: LogBook, time_format: str = "") -> None:
        super().__init__()
        self._book = book
        self.configure(time_format)

    def configure(self, time_format: str, form: str = "text") -> None:
        """Use one of llama-swap's `logTimeFormat` names, empty for no time; and write text, json or logfmt."""
        self._stamp = stamper(time_format)
        self._encode = ENCODERS.get(form)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            if self._encode is not None:
                self._book.write_proxy(lines(record, self._encode, self._book.hide), apart=True)
            else:
                self._book.write_proxy(self._text(record))
        except Exception:  # noqa: BLE001  logging's contract: a bad record must not break the caller
            self.handleError(record)

    def _text(self, record: logging.LogRecord) -> bytes:
        front = f"[{_LEVELS.get(record.levelname, record.levelname)}] "
        if self._stamp is not None:
            front = f"{self._stamp(datetime.fromtimestamp(record.created).astimezone())} {front}"
        text = front + harmless(self._book.hide(self.format(record))).replace("\n", "\n" + front)
        return f"{text}\n".encode(errors="replace")
