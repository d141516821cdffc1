"""Watches a run from beside the callers: the target's counters, what its models do, and how late the own clock is."""

import json
import logging
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import gevent

from loadtests.exposition import Exposition
from loadtests.samples import Sample
from loadtests.scenario import Scenario
from loadtests.seen import Generator, Seen, Upstreams
from loadtests.target import Kind, Lanes, Target, TargetError

log = logging.getLogger("loadtests")

CLOCK_EVERY_S, RUNNING_EVERY_S = 0.05, 0.1
COMINGS_AND_GOINGS = ("llmswap_swaps_total", "llmswap_model_exits_total")


@dataclass
class Witness:
    """Of one run.

    Attributes:
        alone: Nobody else uses the target, and its upstreams are simulated.
        log_path: Of llmswap's log as JSON; empty if it cannot be read.
        lags_s: How late the own timers were.
        cpu_high: A process of the load generator used up its core.
        began_s: Unix time at which the callers began; 0 before.
    """

    target: Target
    alone: bool
    log_path: str
    lags_s: list[float] = field(default_factory=list)
    cpu_high: bool = False
    began_s: float = 0.0
    _kind: Kind = Kind.OPENAI
    _before: Exposition | None = None
    _lanes: Lanes = field(default_factory=lambda: Lanes(RUNNING_EVERY_S))
    _watches: list[gevent.Greenlet] = field(default_factory=list)

    def prepare(self, scenario: Scenario) -> None:
        """Make the target ready, take stock of it, and begin to watch.

        Raises:
            TargetError: It cannot be used.
            OSError: It is gone.
        """
        self._kind = self.target.kind()
        below = any(step.api in ("props", "socket") for caller in scenario.callers for step in caller.loop)
        if below and self._kind is Kind.OPENAI:
            raise TargetError(f"{scenario.name} asks below /upstream/, which {self.target.url} has not")
        self.target.prepare(scenario)
        if self._kind is Kind.LLMSWAP:
            self._before = self.target.scrape()
        self.began_s = time.time()
        self._watches.append(gevent.spawn(self._watch_models))
        self.watch_clock()

    def watch_clock(self) -> None:
        """Begin to watch the own clock."""
        self._watches.append(gevent.spawn(self._watch_clock))

    def rest(self) -> None:
        """Watch no longer."""
        gevent.killall(self._watches)

    def testify(self, samples: list[Sample], ran_s: float, real_s: float) -> Seen:
        """Take stock again, and say all that was seen."""
        after = self._after()
        return Seen(
            kind=self._kind,
            samples=sorted(samples, key=lambda sample: sample.at_s),
            began_s=self.began_s,
            ran_s=ran_s,
            real_s=real_s,
            lanes=self._lanes,
            generator=Generator(self.cpu_high, tuple(self.lags_s)),
            before=self._before,
            after=after,
            upstreams=self._ask_upstreams(after),
            firsts_s=self._read_log(),
            alone=self.alone,
        )

    def _watch_models(self) -> None:
        began_s = time.monotonic()
        while not self._lanes.blind:
            try:
                self._lanes.see(time.monotonic() - began_s, self.target.running())
            except OSError as error:
                log.warning("/running: %s", error)
            gevent.sleep(self._lanes.every_s)

    def _watch_clock(self) -> None:
        while True:
            due_s = time.monotonic() + CLOCK_EVERY_S
            gevent.sleep(CLOCK_EVERY_S)
            self.lags_s.append(time.monotonic() - due_s)

    def _after(self) -> Exposition | None:
        if self._before is None:
            return None
        try:
            return self.target.quiet(gevent.sleep)
        except OSError as error:
            log.error("the target's metrics cannot be read after the run: %s", error)
            return None

    def _ask_upstreams(self, after: Exposition | None) -> Upstreams | None:
        """Ask simulated upstreams what they saw, if all of them have lived since before the run."""
        if after is None or self._before is None or not self.alone:
            return None
        grown = after.since(self._before)
        if any(grown.total(name) for name in COMINGS_AND_GOINGS):
            return None
        aborted, firsts_s = 0, []
        for upstream in (self.target.running() or {}).values():
            state, journal = (json.loads(self.target.send(f"{upstream['proxy']}/_fake/{page}")[1])
                              for page in ("state", "journal"))  # fmt: skip
            aborted += state["totals"]["finished"].get("abort", 0)
            born_s = journal["born_s"] - time.monotonic() + time.time()
            firsts_s += [
                call["first_s"] - call["at_s"]
                for call in journal["calls"]
                if call["first_s"] is not None and born_s + call["at_s"] >= self.began_s
            ]
        return Upstreams(aborted, tuple(firsts_s))

    def _read_log(self) -> tuple[float, ...] | None:
        """Read from llmswap's own log when each stream's first token came."""
        if not self.log_path:
            return None
        lines = Path(self.log_path).read_text(errors="replace").splitlines()
        events = (json.loads(line) for line in lines if '"request.completed"' in line and '"ttft_s"' in line)
        return tuple(
            event["ttft_s"]
            for event in events
            if event["stream"] and datetime.fromisoformat(event["time"]).timestamp() >= self.began_s
        )
