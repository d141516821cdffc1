"""The proxy itself: its build and config, how late its event loop is, and what telemetry costs and loses."""

import asyncio
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata

import llmswap
from llmswap.telemetry import names
from llmswap.telemetry.cells import Catalogue

LAG_EVERY_S = 0.1


def revision() -> str:
    """Give the commit that was installed, if an installer noted it; else nothing."""
    try:
        noted = metadata.distribution("llmswap").read_text("direct_url.json")
        return str(json.loads(noted or "{}").get("vcs_info", {}).get("commit_id", ""))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return ""


@dataclass(frozen=True, slots=True)
class Losses:
    """Who says, at once and on the event loop, what did not get where it should.

    Attributes:
        spans: Spans by what became of them; `span_queue`, how many wait.
        journal: Steps that the journal lost.
        stdout: Bytes of the log that standard output did not take; `readers`, the same of who follows it over HTTP.
    """

    spans: Callable[[], Mapping[str, int]] = dict
    span_queue: Callable[[], int] = int
    journal: Callable[[], int] = int
    stdout: Callable[[], int] = int
    readers: Callable[[], int] = int


class ProxyMetrics:
    """Counts what the proxy is and does beside serving."""

    def __init__(self, catalogue: Catalogue, losses: Losses) -> None:
        catalogue.family(names.BUILD_INFO).set(1.0, llmswap.__version__, revision(), platform.python_version())
        self._models = catalogue.family(names.CONFIG_MODELS).cell()
        self._reload_ok = catalogue.family(names.CONFIG_RELOAD_OK).cell()
        self._reloaded_at = catalogue.family(names.CONFIG_RELOAD_TIME).cell()
        self._lag = catalogue.histogram(names.LOOP_LAG).cell()
        self.renders = catalogue.histogram(names.RENDER_SECONDS).cell()
        self.holds = catalogue.histogram(names.RENDER_HOLD_SECONDS).cell()
        self._spans = catalogue.family(names.TRACE_SPANS)
        self._queue = catalogue.family(names.TRACE_QUEUE).cell()
        self._journal = catalogue.family(names.JOURNAL_DROPPED).cell()
        self._stdout = catalogue.family(names.STDOUT_DROPPED).cell()
        self._readers = catalogue.family(names.LOG_READERS_DROPPED).cell()
        self.errors = catalogue.family(names.OBSERVER_ERRORS).cell()
        self._losses = losses

    def configured(self, models: int) -> None:
        """Take note of a good config."""
        self._models.value = models
        self._reload_ok.value = 1
        self._reloaded_at.value = time.time()

    def config_rejected(self) -> None:
        """Take note that a reload failed and the old config serves on."""
        self._reload_ok.value = 0

    async def watch_the_loop(self) -> None:
        """Measure for ever how late the event loop runs what is due."""
        while True:
            due_s = time.monotonic() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, time.monotonic() - due_s))

    def read(self) -> None:
        """Read off what others count."""
        losses = self._losses
        counts = losses.spans()
        for result in names.SPAN_RESULTS:
            self._spans.set(counts.get(result, 0), result)
        self._queue.value = losses.span_queue()
        self._journal.value = losses.journal()
        self._stdout.value = losses.stdout()
        self._readers.value = losses.readers()
