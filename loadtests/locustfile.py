"""Locust's view of the load tests: `locust -f loadtests/locustfile.py --scenario opencode_fanout --host URL`.

The scenario says how many users there are and for how long; each of them is one of its callers. With or without the web
UI, with one process or several (`--processes`). At the end of a run there is a report, and the exit code of the master
says whether it passed.
"""

import logging
import sys
import time
from argparse import Namespace
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]

import gevent  # noqa: E402  Locust patches the standard library before it loads this file
from gevent.event import Event  # noqa: E402
from locust import FastHttpUser, LoadTestShape, events  # noqa: E402
from locust.argument_parser import LocustArgumentParser  # noqa: E402
from locust.env import Environment  # noqa: E402
from locust.runners import MasterRunner, WorkerRunner  # noqa: E402

from loadtests import scenario  # noqa: E402
from loadtests.asking import ask  # noqa: E402
from loadtests.engine import AGAIN, Player  # noqa: E402
from loadtests.exporter import Exporter  # noqa: E402
from loadtests.reading import BadScenarioError  # noqa: E402
from loadtests.samples import FINE, Ending, Sample  # noqa: E402
from loadtests.script import Actor, Call  # noqa: E402
from loadtests.stage import CLOSE, GIVE, WANT, Stage, build  # noqa: E402
from loadtests.target import TargetError  # noqa: E402
from loadtests.wire import new_trace  # noqa: E402

log = logging.getLogger("loadtests")

NEVER_S = 24 * 3600.0
UNUSABLE = 2
stages: list[Stage] = []  # the latest is the one that runs
exporters: list[Exporter] = []


@events.init_command_line_parser.add_listener
def _arguments(parser: LocustArgumentParser) -> None:
    add = parser.add_argument
    own = [word for word in sys.argv if word.endswith((".yaml", ".yml"))]
    names = (*scenario.names(), *own)
    add("--scenario", default="opencode_fanout", choices=names, help="who calls, and how; or a file of your own")
    add("--seed", type=int, default=1, help="the same seed offers the same schedule")
    add("--minutes", type=float, default=0.0, help="of the scenario; 0 for as long as it says itself")
    add("--time-scale", type=float, default=1.0, help="real seconds for one of the scenario; 1 for real models")
    add("--models", default="", help="the target's names of the scenario's models: planner=qwen3,editor=gemma")
    add("--traced", type=float, default=10.0, help="percent of requests that carry a traceparent")
    add("--tokens-per-s", type=float, default=25.0, help="tokens to ask for per real second that an answer is to take")
    add("--api-key", default="", env_var="LLMSWAP_API_KEY", is_secret=True, help="sent as a bearer token")
    add("--report", default="loadtests-reports", help="folder in which the report gets one of its own")
    hidden: dict[str, Any] = {"include_in_web_ui": False}
    add("--policy", default="", help="what to call the target's policy in the report", **hidden)
    add(
        "--metrics-port", type=int, default=9646, help="where Prometheus finds the users' view; 0 for nowhere", **hidden
    )
    add("--alone", action="store_true", help="nobody else uses the target: counters must agree", **hidden)
    add("--llmswap-log", default="", help="llmswap's log as JSON, to compare times with", **hidden)


class CallerUser(FastHttpUser):
    """One caller of the scenario."""

    concurrency = 1000  # a caller may have that many requests open at once
    network_timeout = NEVER_S  # patience is the scenario's affair
    connection_timeout = 10.0
    wait_time = staticmethod(lambda: 0.0)
    player: Player | None = None

    def on_stop(self) -> None:
        """End whatever is open."""
        if self.player is not None:
            self.player.stop()

    def act(self) -> None:
        """Be the next caller that nobody acts yet, to the end of the run."""
        stage = stages[-1]
        actor = stage.next_actor()
        if actor is not None:
            self.player = Player(actor, stage.real_s, _Asking(self, stage, actor), lambda: stage.closing)
            self.player.play()
            stage.finished += 1
        Event().wait()

    tasks = [act]  # noqa: RUF012  Locust's way; a @task in a mixin is not found, and a run without tasks passes


class _Asking:
    """Makes one caller's requests, and tells Locust and the stage of them."""

    def __init__(self, user: CallerUser, stage: Stage, actor: Actor) -> None:
        self._user, self._stage = user, stage
        self._known: set[str] = set()
        self._rng = Random(f"{actor.seed}/trace/{actor.number}")  # noqa: S311  which requests are traced is no secret

    def __call__(self, actor: Actor, call: Call, number: int, attempt: int, last: bool) -> Sample:  # noqa: FBT001
        stage = self._stage
        traced = self._rng.random() * 100 < stage.options.traced
        trace, parent = new_trace(self._rng) if traced else ("", "")
        known = call.model in self._known
        wire = stage.asker.wire(call, actor, number, known=known, trace=parent)
        sample = Sample(
            time.time(), actor.name, actor.number, number, attempt, call.model, call.api, call.takes_s, trace
        )
        patience_s = None if call.patience_s == float("inf") else call.patience_s * stage.real_s
        stage.open += 1
        try:
            ask(self._user.client, wire, patience_s, call.leaves_at, sample)
        finally:
            stage.open -= 1
            if call.made_up and sample.status == 404:
                sample.ending, sample.why = Ending.MISSING, ""
            if sample.dispatched:
                self._known.add(call.model)
            sample.last = last or sample.ending not in AGAIN
            stage.add(sample)
            self._tell(sample)
        return sample

    def _tell(self, sample: Sample) -> None:
        """Show a sample in Locust's own statistics, in real milliseconds."""
        if sample.ending is Ending.OPEN:
            return
        fire = self._user.environment.events.request.fire
        error = None if sample.ending in FINE else RuntimeError(sample.why or sample.ending)
        entries = {
            "E2E": sample.e2e_s,
            "WAIT": sample.wait_s,
            "TTFT": sample.ttft_s,
            "ITL-mean": sample.gap_mean_s,
            "ITL-max": sample.gap_max_s,
        }
        for kind, time_s in entries.items():
            if time_s is not None:
                fire(
                    request_type=kind,
                    name=sample.model,
                    response_time=1000 * time_s,
                    response_length=0,
                    exception=error if kind == "E2E" else None,
                    context={},
                )


class ScenarioShape(LoadTestShape):
    """All callers from the first moment on, until the time is up."""

    def tick(self) -> tuple[int, float] | None:
        """Say how many users there are to be."""
        if not stages or stages[-1].over:
            try:
                _set_stage(self.runner.environment)
            except (BadScenarioError, TargetError) as error:
                log.error("%s", error)
                return None
        stage = stages[-1]
        if stage.is_done:
            stage.wait_for_the_rest()
            self.runner.stop()  # with workers, this waits for their last samples; the report is written here
            return None
        return stage.users, float(stage.users)


def _set_stage(environment: Environment) -> None:
    stage = build(environment, environment.parsed_options)
    stages[:] = [stage]
    for exporter in exporters:
        exporter.follow(stage)


@events.init.add_listener
def _init(environment: Environment, **_: object) -> None:
    runner, options = environment.runner, environment.parsed_options or Namespace()
    if isinstance(runner, WorkerRunner):
        runner.register_message(GIVE, lambda environment, msg, **_: stages[-1].actor_given(msg.data))  # noqa: ARG005
        runner.register_message(CLOSE, lambda environment, msg, **_: stages[-1].drop_curtain())  # noqa: ARG005
        return
    if isinstance(runner, MasterRunner):
        runner.register_message(WANT, lambda environment, msg, **_: stages[-1].actor_wanted(msg.node_id))  # noqa: ARG005
    if port := getattr(options, "metrics_port", 0):
        try:
            exporters.append(Exporter(port))
        except OSError as error:
            log.error("no metrics for Prometheus on port %d: %s; choose another with --metrics-port", port, error)


@events.test_start.add_listener
def _begin(environment: Environment, **_: object) -> None:
    if isinstance(environment.runner, WorkerRunner):
        _set_stage(environment)
        stages[-1].witness.watch_clock()
        return
    stage = stages[-1]
    try:
        stage.begin()
    except (TargetError, OSError) as error:
        log.error("%s", error)
        stage.exit_code = UNUSABLE


@events.test_stop.add_listener
def _end(environment: Environment, **_: object) -> None:
    if not stages:
        return
    stage = stages[-1]
    if isinstance(environment.runner, MasterRunner):
        gevent.sleep(0.5)  # the workers' last samples are on their way
    stage.end()
    if stage.folder is not None:
        log.info("report: %s", stage.folder / "report.html")


@events.report_to_master.add_listener
def _hand_over(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001
    if stages:
        data["loadtest"] = stages[-1].hand_over()


@events.worker_report.add_listener
def _take_over(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001
    if stages and "loadtest" in data:
        stages[-1].take_over(data["loadtest"])


@events.cpu_warning.add_listener
def _note_cpu(environment: Environment, cpu_usage: float, **_: object) -> None:  # noqa: ARG001
    if stages:
        stages[-1].witness.cpu_high = True


@events.quitting.add_listener
def _decide(environment: Environment, **_: object) -> None:
    """Set the exit code; a worker's would only be in the way of the master's."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    if stages and not stages[-1].over and runner is not None:
        runner.stop()  # somebody has interrupted the run
    code = stages[-1].exit_code if stages else None
    headless = bool(environment.parsed_options and environment.parsed_options.headless)
    environment.process_exit_code = code if code is not None else UNUSABLE if headless else 0
