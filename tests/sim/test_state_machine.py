"""The scheduler against hypothesis: any event in any order, and the shortest story when an invariant breaks."""

from dataclasses import dataclass, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Reject, Sleep, Start, Stop, Wake
from llmswap.core.fleet import Fleet, Group, MatrixRules, Model, ModelId, Router
from llmswap.core.scheduler import Scheduler
from llmswap.core.step import Step
from llmswap.sim.checkers import Checkers, Truth

A, B, C, D = NAMES = [ModelId(name) for name in "abcd"]
MODELS = {
    A: Model(A, concurrency_limit=2, idle_ttl_s=5, sleeps=True, sleep_after_s=1, fingerprint="1"),
    B: Model(B, priority=3, queue_timeout_s=30, sleeps=True, fingerprint="1"),
    C: Model(C, idle_ttl_s=1, sleeps=True, fingerprint="1"),
    D: Model(D, fingerprint="1"),
}
CHANGED = {**MODELS, A: replace(MODELS[A], fingerprint="2"), B: replace(MODELS[B], priority=0, fingerprint="2")}


def fleet_of(models, **rules):
    return Fleet(models, {str(name): name for name in models}, **rules)


FLEETS = [
    fleet_of(MODELS),
    fleet_of(CHANGED, queue_max=3, sleepers_max=1),
    fleet_of({name: MODELS[name] for name in (A, C)}),
    fleet_of(MODELS, groups=(Group("g", (A, B)), Group("h", (C,), exclusive=False), Group("p", (D,), persistent=True))),
    fleet_of(MODELS, groups=(Group("side", (A, B, C), swap=False), Group("big", (D,)))),
    fleet_of(MODELS, matrix=MatrixRules({}, {"s": "a & (b | c)", "t": "d & +s"}, {B: 5}), router=Router.MATRIX),
    fleet_of(CHANGED, matrix=MatrixRules({}, {"u": "c & d", "v": "a | b"}), router=Router.MATRIX),
]


@dataclass
class Process:
    model: ModelId
    generation: ev.Generation
    state: str = "starting"
    memory_free: bool = False


class SchedulerMachine(RuleBasedStateMachine):
    """Any outcome may come in any order. Rules pick by index, so that a shrunk story reads well."""

    @initialize(fleet=st.sampled_from(FLEETS))
    def boot(self, fleet):
        self.now_s = 0.0
        self.scheduler = Scheduler(fleet)
        self.checkers = Checkers(fleet, self.scheduler.snapshot())
        self.processes: dict[ModelId, Process] = {}
        self.waiting: list[ev.RequestId] = []
        self.serving: list[ev.RequestId] = []
        self.requests = 0
        self.past: list[ev.Event] = []

    def feed(self, event):
        due_s = self.scheduler.next_deadline_s()
        step = Step(self.now_s, event, self.scheduler.handle(self.now_s, event))
        alive = {process.model: process.generation for process in self.processes.values()}
        asleep = {process.model for process in self.processes.values() if process.memory_free}
        truth = Truth(alive, {model: life for model, life in alive.items() if model not in asleep})
        self.checkers.check(step, self.scheduler.snapshot(), truth, due_s)
        for command in step.commands:
            match command:
                case Dispatch(request):
                    self.waiting.remove(request)
                    self.serving.append(request)
                case Reject(request):
                    self.waiting.remove(request)
                case Start(model, generation):
                    self.processes[model] = Process(model, generation)
                case Stop(model):
                    self.processes[model].state = "stopping"
                case Sleep(model):
                    self.processes[model].state = "dozing"
                case Wake(model):
                    self.processes[model].state, self.processes[model].memory_free = "waking", False

    def outcome(self, event):
        self.past.append(event)
        self.feed(event)

    def some(self, state, index):
        found = [process for process in self.processes.values() if process.state == state]
        return found[index % len(found)] if found else None

    @rule(model=st.sampled_from([*NAMES, ModelId("ghost")]), count=st.integers(1, 4))
    def arrive(self, model, count):
        for _ in range(count):
            self.requests += 1
            self.waiting.append(ev.RequestId(self.requests))
            self.feed(ev.RequestArrived(self.waiting[-1], model))

    @precondition(lambda self: self.waiting)
    @rule(index=st.integers(0, 9))
    def cancel(self, index):
        self.feed(ev.RequestCancelled(self.waiting.pop(index % len(self.waiting))))

    @precondition(lambda self: self.serving)
    @rule(index=st.integers(0, 9))
    def finish(self, index):
        self.feed(ev.RequestFinished(self.serving.pop(index % len(self.serving))))

    @rule(seconds=st.sampled_from([0.5, 1, 5, 29, 30, 600]))
    def wait(self, seconds):
        until_s = self.now_s + seconds
        while (due_s := self.scheduler.next_deadline_s()) is not None and due_s <= until_s:
            self.now_s = max(self.now_s, due_s)
            self.feed(ev.DeadlineReached())
        self.now_s = until_s

    @rule(index=st.integers(0, 3))
    def get_ready(self, index):
        if process := self.some("starting", index):
            process.state = "ready"
            self.outcome(ev.UpstreamReady(process.model, process.generation))

    @rule(index=st.integers(0, 3), state=st.sampled_from(["starting", "stopping"]))
    def fail_to_start(self, index, state):
        if process := self.some(state, index):
            del self.processes[process.model]
            self.outcome(ev.StartFailed(process.model, process.generation, "no"))

    @rule(index=st.integers(0, 3), fails=st.booleans(), lasting=st.booleans())
    def fall_asleep(self, index, fails, lasting):
        if process := self.some("dozing", index):
            process.state, process.memory_free = "half asleep" if fails else "asleep", not fails
            failed = ev.SleepFailed(process.model, process.generation, "no", lasting)
            self.outcome(failed if fails else ev.UpstreamAsleep(process.model, process.generation, 4))

    @rule(index=st.integers(0, 3), fails=st.booleans())
    def wake_up(self, index, fails):
        if process := self.some("waking", index):
            process.state = "half awake" if fails else "ready"
            failed = ev.WakeFailed(process.model, process.generation, "no")
            self.outcome(failed if fails else ev.UpstreamReady(process.model, process.generation))

    @rule(model=st.sampled_from(NAMES), patience_s=st.sampled_from([0, 5]))
    def order_to_sleep(self, model, patience_s):
        self.feed(ev.SleepRequested(model, self.now_s + patience_s))

    @rule(index=st.integers(0, 3), state=st.sampled_from(["ready", "dozing", "asleep", "waking"]))
    def crash(self, index, state):
        if process := self.some(state, index):
            process.state = "stopping"
            self.outcome(ev.UpstreamExited(process.model, process.generation, "died"))

    @rule(index=st.integers(0, 3))
    def stop(self, index):
        if process := self.some("stopping", index):
            del self.processes[process.model]
            self.outcome(ev.UpstreamStopped(process.model, process.generation))

    @rule(index=st.integers(0, 3))
    def get_stuck(self, index):
        if process := self.some("stopping", index):
            self.outcome(ev.StopFailed(process.model, process.generation, "D state"))

    @precondition(lambda self: self.past)
    @rule(index=st.integers(0, 99))
    def repeat_an_outcome_of_the_past(self, index):
        event = self.past[index % len(self.past)]
        process = self.processes.get(event.model)
        if process is None or process.generation != event.generation:
            self.feed(event)

    @rule(model=st.sampled_from(NAMES))
    def load(self, model):
        self.feed(ev.LoadRequested(model))

    @rule(models=st.lists(st.sampled_from(NAMES), max_size=2))
    def unload(self, models):
        self.feed(ev.UnloadRequested(tuple(models)))

    @rule(fleet=st.sampled_from(FLEETS))
    def reload(self, fleet):
        self.feed(ev.FleetReloaded(fleet))

    @rule(grace_s=st.sampled_from([0, 1, 30]))
    @precondition(lambda self: self.requests > 8)
    def drain(self, grace_s):
        self.feed(ev.DrainRequested(self.now_s + grace_s))

    def teardown(self):
        """Let everything end: then nothing may be left (I11)."""
        for _ in range(100):
            while self.serving:
                self.finish(0)
            self.stop(0)
            self.get_ready(0)
            self.fall_asleep(0, fails=False, lasting=False)
            self.wake_up(0, fails=False)
        for _ in range(3):  # idle: asleep; asleep: stopped
            self.wait(700)
            for _ in range(10):
                self.fall_asleep(0, fails=False, lasting=False)
                self.stop(0)
        self.wait(700)
        self.checkers.check_quiet(self.scheduler.snapshot())


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,  # the seeded worlds bring the volume; this brings the shrinking, the same on every machine
    suppress_health_check=[HealthCheck.too_slow],
)
