"""A run of a scenario within Locust: who acts which caller, what they bring back, and the end of it.

On the master, or where there is only one process, the stage has everything; on a worker it asks the master for callers
and sends it samples.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
from gevent.queue import Queue
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import gate, report, scenario, score
from loadtests.samples import Sample
from loadtests.scenario import Scenario
from loadtests.script import Actor, cast
from loadtests.target import Target, TargetError
from loadtests.wire import Asker
from loadtests.witness import Witness

GRACE_S, GRACE_LOOK_S = 2.0, 0.02  # for what is open when the time is up
WANT, GIVE, NOBODY, CLOSE = "loadtest-actor-wanted", "loadtest-actor", -1, "loadtest-close"


@dataclass
class Stage:
    """One run.

    Attributes:
        options: Locust's, ours among them.
        real_s: Real seconds for one of the scenario.
        listeners: Are told every sample that the master gets.
        samples: What callers have brought back; on a worker, since the master was last told.
        finished: How many callers are through with all that they had to do; on a worker as above.
        open: Requests on their way.
        closing: The time is up: nothing new is begun.
        over: The report is written, or the run has failed before it began.
        exit_code: The verdict; None before the end.
        folder: Of the report; None before the end.
    """

    environment: Environment
    scenario: Scenario
    witness: Witness
    options: Any
    real_s: float
    listeners: list[Callable[[Sample], None]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    finished: int = 0
    open: int = 0
    closing: bool = False
    over: bool = False
    exit_code: int | None = None
    folder: Path | None = None
    _ended_s: float = 0.0
    _curtain: gevent.Greenlet | None = None
    _given: "Queue[int]" = field(default_factory=Queue)

    def __post_init__(self) -> None:
        self._cast = cast(self.scenario, self.options.seed)
        self._next: Iterator[Actor] = iter(self._cast)

    @property
    def users(self) -> int:
        """How many callers there are."""
        return len(self._cast)

    @property
    def asker(self) -> Asker:
        """How calls become requests here."""
        target = self.witness.target
        return Asker(target.models, self.real_s, self.options.tokens_per_s, target.api_key)

    @property
    def is_done(self) -> bool:
        """Whether the time is up, or nobody has anything left to do."""
        return self.exit_code is not None or self.over or self.closing or self.finished >= self.users

    def begin(self) -> None:
        """Make the target ready; from then on the time runs.

        Raises:
            TargetError: It cannot be used.
            OSError: It is gone.
        """
        self.witness.prepare(self.scenario)
        minutes = self.options.minutes or self.scenario.minutes
        self._curtain = gevent.spawn_later(60 * minutes * self.real_s, self.drop_curtain)

    # Who acts whom

    def next_actor(self) -> Actor | None:
        """Give the next caller to somebody who is to act one; None if all are given away."""
        runner = self.environment.runner
        if not isinstance(runner, WorkerRunner):
            return next(self._next, None)
        runner.send_message(WANT)
        number = self._given.get()
        return None if number == NOBODY else self._cast[number]

    def actor_wanted(self, worker: str) -> None:
        """Answer a worker."""
        runner = self.environment.runner
        assert isinstance(runner, MasterRunner), "only a master is asked"
        actor = next(self._next, None)
        runner.send_message(GIVE, NOBODY if actor is None else actor.number, client_id=worker)

    def actor_given(self, number: int) -> None:
        """Take the master's answer."""
        self._given.put(number)

    # What they bring back

    def add(self, sample: Sample) -> None:
        """Take a sample."""
        self.samples.append(sample)
        for listener in self.listeners:
            listener(sample)

    def hand_over(self) -> dict[str, Any]:
        """Give what a worker has gathered, and forget it."""
        samples, self.samples = self.samples, []
        finished, self.finished = self.finished, 0
        lags_s, self.witness.lags_s = self.witness.lags_s, []
        return {"samples": [sample.record() for sample in samples], "finished": finished, "lags_s": lags_s}

    def take_over(self, data: dict[str, Any]) -> None:
        """Take what a worker gave."""
        for record in data["samples"]:
            self.add(Sample.of(record))
        self.finished += data["finished"]
        self.witness.lags_s += data["lags_s"]

    # The end

    def drop_curtain(self) -> None:
        """The time is up: nothing new is begun, here and on workers."""
        self.closing, self._ended_s = True, self._ended_s or time.time()
        if isinstance(self.environment.runner, MasterRunner):
            self.environment.runner.send_message(CLOSE)

    def wait_for_the_rest(self) -> None:
        """Give what is open a moment to end: the fewer requests are cut off, the better counts can be compared."""
        if not self.witness.began_s:
            return
        self.drop_curtain()
        elsewhere, end_s = isinstance(self.environment.runner, MasterRunner), time.monotonic() + GRACE_S
        while (self.open or elsewhere) and time.monotonic() < end_s:
            gevent.sleep(GRACE_LOOK_S)

    def end(self) -> None:
        """Write the report, and decide whether the run has passed."""
        self.witness.rest()
        if self._curtain is not None:
            self._curtain.kill()
        ended_before, self.over = self.over, True
        if ended_before or not self.witness.began_s:
            return
        runner = self.environment.runner
        self.witness.cpu_high |= bool(runner and (runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted))
        ran_s = (self._ended_s or time.time()) - self.witness.began_s
        seen = self.witness.testify(self.samples, ran_s, self.real_s)
        card = gate.judge(score.card(seen, self._run()), self.scenario)
        self.folder = report.write(Path(self.options.report), card, seen.samples)
        self.exit_code = 0 if card["verdict"]["passed"] else 1

    def _run(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "about": self.scenario.about,
            "when": datetime.fromtimestamp(self.witness.began_s, UTC).isoformat(timespec="seconds"),
            "began_s": self.witness.began_s,
            "seed": self.options.seed,
            "policy": self.options.policy or None,
            "target": self.witness.target.url,
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
    return Stage(environment, play, Witness(target, options.alone, options.llmswap_log), options, options.time_scale)
