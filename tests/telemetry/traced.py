"""A whole llmswap in this process with simulated upstreams, whose traces stay in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from llmswap.app import App, Options, running_app
from llmswap.config.load import loads
from llmswap.telemetry import tracing
from llmswap.telemetry.otlp import Pipe
from tests.runtime.rig import free_port
from tests.stack import as_yaml, one, until

CHAT = "/v1/chat/completions"


@dataclass
class Spans:
    """What was exported."""

    exporter: InMemorySpanExporter
    pipe: Pipe

    def all(self) -> list[ReadableSpan]:
        self.pipe.flush()
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Spans of a name, in the order of time."""
        found = [span for span in self.all() if span.name == name]
        return sorted(found, key=lambda span: span.start_time)

    def one(self, name: str) -> ReadableSpan:
        return one(self.named(name), f"span {name}")

    def children(self, of: ReadableSpan) -> list[ReadableSpan]:
        mine = [span for span in self.all() if span.parent is not None and span.parent.span_id == of.context.span_id]
        assert all(span.context.trace_id == of.context.trace_id for span in mine)
        return sorted(mine, key=lambda span: span.start_time)

    def outline(self, root: ReadableSpan) -> list[Any]:
        """A tree as nested names: `[name, child, ...]`, a leaf as its name alone."""
        below = [self.outline(child) for child in self.children(root)]
        return [root.name, *below] if below else root.name  # type: ignore[return-value]

    async def until(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Wait until so many spans of a name are there: a trace is written when the last byte has gone."""
        await until(lambda: len(self.named(name)) >= count, f"{count} spans {name}", within_s=20)
        return self.named(name)


@dataclass
class Traced:
    """The running program and what it traced."""

    app: App
    spans: Spans
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.app.addresses[0]

    async def ask(self, model: str, path: str = CHAT, headers: Mapping[str, str] | None = None, **body: Any) -> int:
        """Ask, read the whole answer, and wait for the trace; gives the status."""
        before = len(self.spans.named(f"POST {path}"))
        data = {"model": model, "messages": [{"role": "user", "content": "a secret prompt"}], **body}
        async with self.http.post(self.url + path, json=data, headers=headers) as answer:
            await answer.read()
            status = answer.status
        await self.spans.until(f"POST {path}", before + 1)
        return status

    async def stream(self, model: str, chunks: int, **body: Any) -> None:
        """Begin a stream, read so many events of it and go; all of them with a large number."""
        data = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True, **body}
        async with self.http.post(self.url + CHAT, json=data) as answer:
            for _ in range(chunks):
                line = await answer.content.readline()
                while line and not line.startswith(b"data:"):
                    line = await answer.content.readline()

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels."""
        async with self.http.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {series: float(value) for series, value in samples}

    async def journal(self, model: str) -> list[dict[str, Any]]:
        """What the simulated upstream has been asked."""
        async with self.http.get(f"{self.url}/upstream/{model}/_fake/journal") as answer:
            return orjson.loads(await answer.read())["calls"]


@asynccontextmanager
async def traced(
    models: Mapping[str, Any],
    http: aiohttp.ClientSession,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    **config: Any,
) -> AsyncIterator[Traced]:
    """Serve these models for as long as the block lasts; `traces` are the keys of `telemetry.traces`."""
    exporter = InMemorySpanExporter()
    pipes: list[Pipe] = []

    def open_in_memory(endpoint: str, protocol: str, environ: Mapping[str, str]) -> Pipe:
        pipes.append(Pipe(exporter, {}, "test"))
        return pipes[-1]

    monkeypatch.setattr(tracing, "open_otlp", open_in_memory)
    traces = {"endpoint": "http://127.0.0.1:9", **config.pop("traces", {})}
    text = as_yaml({"models": dict(models), "startPort": free_port(), "telemetry": {"traces": traces}, **config})
    options = Options(listen="127.0.0.1:0", state_dir=folder)
    async with running_app(options, lambda: loads(text)) as app:
        yield Traced(app, Spans(exporter, pipes[0]), http)


def seconds(span: ReadableSpan) -> float:
    return (span.end_time - span.start_time) / 1e9


def status(span: ReadableSpan) -> tuple[str, Any]:
    """`error` or `unset`, and the error type."""
    return ("error" if span.status.status_code is StatusCode.ERROR else "unset", span.attributes.get("error.type"))


def uncovered(span: ReadableSpan, children: Sequence[ReadableSpan]) -> float:
    """The share of a span's time that none of its children tells of, without 20 ms: that is what a busy machine
    may let pass between two steps, and a great share of the short spans of tests."""
    untold = seconds(span) - sum(map(seconds, children))
    return max(0.0, untold - 0.02) / seconds(span)
