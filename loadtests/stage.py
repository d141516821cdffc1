"""A run of a scenario within Locust: its callers, its target, its samples, and the end of it.

On the master, or where there is only one process, the stage has everything; on a worker it asks the master for callers
and sends it samples.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import gevent
from gevent.queue import Queue
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import gate, report, scenario, score
from loadtests.exposition import Exposition
from loadtests.samples import Sample
from loadtests.scenario import Scenario
from loadtests.script import Actor, cast
from loadtests.seen import Generator, Seen, Upstreams
from loadtests.target import Kind, Lanes, Target, TargetError
from loadtests.wire import Asker

log = logging.getLogger("loadtests")

LAG_EVERY_S = 0.05
GRACE_S, GRACE_LOOK_S = 2.0, 0.02  # for what is open when the time is up
WATCH_EVERY_S = 0.1
WANT, GIVE, NOBODY, CLOSE = "loadtest-actor-wanted", "loadtest-actor", -1, "loadtest-close"


@dataclass
class Stage:
    """One run.

    Attributes:
        listeners: Are told every sample that the master gets.
        open: Requests on their way.
        closing: The time is up: nothing new is begun.
        over: The report is written, or the run has failed before it began.
    """

    environment: Environment
    scenario: Scenario
    target: Target
    seed: int
    minutes: float
    real_s: float
    options: Any
    listeners: list[Callable[[Sample], None]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    finished: int = 0
    began_s: float = 0.0
    exit_code: int | None = None
    folder: Path | None = None
    open: int = 0
    closing: bool = False
    over: bool = False
    _ended: float = 0.0
    _began: float = 0.0
    _kind: Kind = Kind.OPENAI
    _before: Exposition | None = None
    _lanes: Lanes = field(default_factory=lambda: Lanes(WATCH_EVERY_S))
    _lags_s: list[float] = field(default_factory=list)
    _cpu_high: bool = False
    _watchers: list[gevent.Greenlet] = field(default_factory=list)
    _waiting: "Queue[int]" = field(default_factory=Queue)
    _cast: tuple[Actor, ...] = ()
    _next: Iterator[Actor] = field(default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        self._cast = cast(self.scenario, self.seed)
        self._next = iter(self._cast)

    @property
    def is_worker(self) -> bool:
        """Whether this is one of several processes, and not the one in charge."""
        return isinstance(self.environment.runner, WorkerRunner)

    @property
    def asker(self) -> Asker:
        """How calls become requests here."""
        return Asker(self.target.models, self.real_s, self.options.tokens_per_s, self.target.api_key)

    @property
    def users(self) -> int:
        """How many callers there are."""
        return len(self._cast)

    @property
    def is_done(self) -> bool:
        """Whether the time is up, or nobody has anything left to do."""
        return self.exit_code is not None or self.over or self.closing or self.finished >= self.users

    # Before

    def begin(self) -> None:
        """Make the target ready, and take stock of it.

        Raises:
            TargetError: It cannot be used.
        """
        if self.is_worker:
            return
        self._kind = self.target.kind()
        below = any(step.api in ("props", "socket") for caller in self.scenario.callers for step in caller.loop)
        if below and self._kind is Kind.OPENAI:
            raise TargetError(f"{self.scenario.name} asks below /upstream/, which {self.target.url} has not")
        self.target.prepare(self.scenario)
        if self._kind is Kind.LLMSWAP:
            self._before = self.target.scrape()
        self.began_s, self._began = time.time(), time.monotonic()
        curtain = gevent.spawn_later(60 * self.minutes * self.real_s, self.drop_curtain)
        self._watchers = [gevent.spawn(self._watch), gevent.spawn(self._listen_to_the_clock), curtain]

    def next_actor(self) -> Actor | None:
        """Give the next caller to somebody who is to act one; None if all are given away."""
        runner = self.environment.runner
        if not isinstance(runner, WorkerRunner):
            return next(self._next, None)
        runner.send_message(WANT)
        number = self._waiting.get()
        return None if number == NOBODY else self._cast[number]

    def actor_wanted(self, worker: str) -> None:
        """Answer a worker."""
        runner = self.environment.runner
        assert isinstance(runner, MasterRunner), "only a master is asked"
        actor = next(self._next, None)
        runner.send_message(GIVE, NOBODY if actor is None else actor.number, client_id=worker)

    def actor_given(self, number: int) -> None:
        """Take the master's answer."""
        self._waiting.put(number)

    # Meanwhile

    def add(self, sample: Sample) -> None:
        """Take a sample."""
        self.samples.append(sample)
        for listener in self.listeners:
            listener(sample)

    def hand_over(self) -> dict[str, Any]:
        """Give what a worker has gathered, and forget it."""
        samples, self.samples = self.samples, []
        finished, self.finished = self.finished, 0
        lags_s, self._lags_s = self._lags_s, []
        return {"samples": [sample.record() for sample in samples], "finished": finished, "lags_s": lags_s}

    def take_over(self, data: dict[str, Any]) -> None:
        """Take what a worker gave."""
        for record in data["samples"]:
            self.add(Sample.of(record))
        self.finished += data["finished"]
        self._lags_s += data["lags_s"]

    def note_cpu(self) -> None:
        """Note that a process of ours uses up its core."""
        self._cpu_high = True

    def trace_wanted(self, rng: Random) -> bool:
        """Decide whether a request is traced."""
        return rng.random() * 100 < float(self.options.traced)

    def _watch(self) -> None:
        """Look what the target's models do, for as long as it says so."""
        while not self._lanes.blind:
            try:
                self._lanes.see(time.monotonic() - self._began, self.target.running())
            except OSError as error:
                log.warning("/running: %s", error)
            gevent.sleep(self._lanes.every_s)

    def _listen_to_the_clock(self) -> None:
        while True:
            due_s = time.monotonic() + LAG_EVERY_S
            gevent.sleep(LAG_EVERY_S)
            self._lags_s.append(time.monotonic() - due_s)

    def watch_worker(self) -> None:
        """On a worker: keep an eye on the own clock."""
        self._watchers = [gevent.spawn(self._listen_to_the_clock)]

    # After

    def drop_curtain(self) -> None:
        """The time is up: nothing new is begun, here and on workers."""
        self.closing, self._ended = True, self._ended or time.monotonic()
        if isinstance(self.environment.runner, MasterRunner):
            self.environment.runner.send_message(CLOSE)

    def wait_for_the_rest(self) -> None:
        """Give what is open a moment to end: the fewer requests are cut off, the better counts can be compared."""
        if not self._began:
            return
        self.drop_curtain()
        runner, end_s = self.environment.runner, self._ended + GRACE_S
        while (self.open or isinstance(runner, MasterRunner)) and time.monotonic() < end_s:
            gevent.sleep(GRACE_LOOK_S)

    def end(self) -> None:
        """Take stock again, write the report, and decide whether the run has passed."""
        if self.over or self.is_worker:
            gevent.killall(self._watchers)
            return
        self.over = True
        if not self._began:
            return
        ran_s = (self._ended or time.monotonic()) - self._began
        gevent.killall(self._watchers)
        seen = self._look_back(ran_s)
        card = gate.judge(score.card(seen, self._run()), self.scenario)
        self.folder = report.write(Path(self.options.report), card, seen.samples, self.began_s)
        self.exit_code = 0 if card["verdict"]["passed"] else 1

    def _look_back(self, ran_s: float) -> Seen:
        after = self.target.quiet(gevent.sleep) if self._before is not None else None
        runner = self.environment.runner
        high = self._cpu_high or bool(runner and (runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted))
        return Seen(
            kind=self._kind,
            samples=sorted(self.samples, key=lambda sample: sample.at_s),
            began_s=self.began_s,
            ran_s=ran_s,
            real_s=self.real_s,
            lanes=self._lanes,
            generator=Generator(high, tuple(self._lags_s)),
            before=self._before,
            after=after,
            upstreams=self._ask_upstreams(after),
            firsts_s=self._read_log(),
            alone=self.options.alone,
        )

    def _ask_upstreams(self, after: Exposition | None) -> Upstreams | None:
        """Ask simulated upstreams what they saw, if all of them have lived since before the run."""
        if after is None or self._before is None or not self.options.alone:
            return None
        grown = after.since(self._before)
        if any(grown.total(name) for name in ("llmswap_swaps_total", "llmswap_model_exits_total")):
            return None
        aborted, firsts_s = 0, []
        for upstream in (self.target.running() or {}).values():
            address = upstream["proxy"]
            aborted += json.loads(self.target.send(f"{address}/_fake/state")[1])["totals"]["finished"].get("abort", 0)
            journal = json.loads(self.target.send(f"{address}/_fake/journal")[1])
            born_s = journal["born_s"] - time.monotonic() + time.time()
            firsts_s += [
                call["first_s"] - call["at_s"]
                for call in journal["calls"]
                if call["first_s"] is not None and born_s + call["at_s"] >= self.began_s
            ]
        return Upstreams(aborted, tuple(firsts_s))

    def _read_log(self) -> tuple[float, ...] | None:
        """Read from llmswap's own log when each stream's first token came."""
        if not self.options.llmswap_log:
            return None
        firsts_s = []
        for line in Path(self.options.llmswap_log).read_text(errors="replace").splitlines():
            if '"request.completed"' in line and '"ttft_s"' in line:
                event = json.loads(line)
                if datetime.fromisoformat(event["time"]).timestamp() >= self.began_s and event.get("stream"):
                    firsts_s.append(event["ttft_s"])
        return tuple(firsts_s)

    def _run(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "about": self.scenario.about,
            "when": datetime.fromtimestamp(self.began_s, UTC).isoformat(timespec="seconds"),
            "seed": self.seed,
            "policy": self.options.policy or None,
            "target": self.target.url,
            "alone": self.options.alone,
            "callers": self.users,
        }


def build(environment: Environment, options: Any) -> Stage:  # noqa: ANN401  Locust's parsed options
    """Set the stage for what the options say.

    Raises:
        BadScenarioError: The scenario cannot be used.
        TargetError: The options do not say which target, or make no sense.
    """
    play = scenario.load(options.scenario)
    if not environment.host:
        raise TargetError("no target: say which with --host URL")
    models = {}
    for pair in filter(None, (part.strip() for part in options.models.split(","))):
        ours, equals, theirs = pair.partition("=")
        if not (ours in play.models and equals and theirs):
            raise TargetError(f"--models {pair}: write NAME=NAME, with a model of {play.name} on the left")
        models[ours] = theirs
    target = Target(environment.host, options.api_key or "", models)
    minutes = options.minutes or play.minutes
    return Stage(environment, play, target, options.seed, minutes, options.time_scale, options)
