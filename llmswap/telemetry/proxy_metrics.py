"""The proxy itself: its build and config, how late its event loop is, and what telemetry costs and loses."""

import asyncio
import json
import platform
import time
from collections.abc import Callable, Mapping
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


class ProxyMetrics:
    """Counts what the proxy is and does beside serving.

    Args:
        spans: Gives spans by what became of them; `queue`, how many wait.
        journal_dropped: Gives the steps that the journal lost; `stdout_dropped`, the bytes that nobody read.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        spans: Callable[[], Mapping[str, int]],
        queue: Callable[[], int],
        journal_dropped: Callable[[], int],
        stdout_dropped: Callable[[], int],
    ) -> None:
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
        self.errors = catalogue.family(names.OBSERVER_ERRORS).cell()
        self._sources = spans, queue, journal_dropped, stdout_dropped

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
        spans, queue, journal_dropped, stdout_dropped = self._sources
        counts = spans()
        for result in names.SPAN_RESULTS:
            self._spans.set(counts.get(result, 0), result)
        self._queue.value = queue()
        self._journal.value = journal_dropped()
        self._stdout.value = stdout_dropped()
