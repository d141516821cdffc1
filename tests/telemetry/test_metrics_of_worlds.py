"""I19: in random worlds, metrics equal an independent fold of the same Steps, and the scheduler's own picture."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isclose

import pytest

from llmswap.config.settings import Loaded, Settings
from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Reject, RejectReason, Start, Stop, StopCause, Wake
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.scheduler import Scheduler
from llmswap.core.snapshot import Snapshot
from llmswap.core.states import State
from llmswap.core.step import Step
from llmswap.sim.fold import Fold
from llmswap.sim.world import World
from tests.telemetry.counted import Counted, sum_of

WORLDS = 120
CHUNK = 30


@dataclass
class Sums:
    """What a reader of Steps adds up, the plain way: every wait by request, every state by model, step by step."""

    waits: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    spent: dict[tuple[ModelId, State], float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter[str] = field(default_factory=Counter)
    served_s: float = 0.0
    moving_s: float = 0.0


class Story:
    """One world, told to metrics and to the simulator's own fold at once."""

    def __init__(self, seed: int, *, fair: bool) -> None:
        self.world = World(seed, self._make, fair=fair)
        self.scheduler: Scheduler
        self.counted: Counted
        self.sums = Sums()

    def _make(self, fleet: Fleet, now_s: float) -> "Listened":
        self.counted = Counted(config=Loaded(fleet, Settings({})), start_s=now_s)
        self.fold = Fold(fleet)
        self.fleets = [fleet]
        self.asked: dict[ev.RequestId, tuple[ModelId, float]] = {}
        self.at_s = now_s
        self.scheduler = Scheduler(fleet, now_s)
        return Listened(self)

    def step(self, step: Step) -> None:
        """Take a step; the simulator's fold knows the states before and after it."""
        self._spend(step.at_s)
        if isinstance(step.event, ev.FleetReloaded) and self.fold.drain_by_s is None:
            self.fleets.append(step.event.fleet)
            self.counted.metrics.configured(Loaded(step.event.fleet, Settings({})))
        if isinstance(step.event, ev.RequestArrived):
            self.asked[step.event.request] = step.event.model, step.at_s
        before = {model: (life.state, life.generation) for model, life in self.fold.lives.items()}
        self.fold.event(step.at_s, step.event)
        self._note(step, before)
        for command in step.commands:
            self._note_command(step.at_s, command)
            self.fold.command(command)
        self.fold.settle()
        self.counted.steps(step)

    def _spend(self, at_s: float) -> None:
        lives = self.fold.lives.values()
        for life in lives:
            self.sums.spent[life.model.id, life.state] += at_s - self.at_s
        moving = (State.STARTING, State.WAKING, State.STOPPING, State.SLEEP_PENDING)
        if any(life.state is State.READY and life.serving for life in lives):
            self.sums.served_s += at_s - self.at_s
        elif any(life.state in moving for life in lives):
            self.sums.moving_s += at_s - self.at_s
        self.at_s = at_s

    def _note(self, step: Step, before: dict[ModelId, tuple[State, int]]) -> None:
        event, counts = step.event, self.sums.counts
        if isinstance(event, ev.RequestCancelled) and event.request in self.asked:
            self._waited(step.at_s, event.request, "disconnect")
        model = getattr(event, "model", None)
        state, generation = before.get(model, (None, None))
        if state is None or getattr(event, "generation", None) != generation:
            return
        match event, state:
            case ev.UpstreamReady(), (State.STARTING | State.WAKING):
                counts["swap ok"] += 1
            case (
                ((ev.StartFailed() | ev.StopFailed()), State.STARTING)
                | (ev.WakeFailed(), State.WAKING)
                | (ev.UpstreamExited(), State.WAKING)
            ):
                counts["swap failed"] += 1
        match event, state:
            case ((ev.StartFailed() | ev.StopFailed()), State.STARTING):
                counts["exit start_failed"] += 1
            case ev.UpstreamExited(), (State.READY | State.WAKING | State.ASLEEP | State.SLEEP_PENDING):
                counts["exit by itself"] += 1

    def _note_command(self, at_s: float, command: object) -> None:
        counts = self.sums.counts
        match command:
            case Dispatch(request):
                counts["dispatch"] += 1
                self._waited(at_s, request, "admitted")
            case Reject(request, reason):
                counts["reject"] += 1
                self._waited(at_s, request, "timeout" if reason is RejectReason.QUEUE_TIMEOUT else "rejected")
            case Start() | Wake():
                counts["begun"] += 1
            case Stop(model) if self.fold.lives[model].state in (State.STARTING, State.WAKING):
                counts["stopped on its way"] += 1

    def _waited(self, at_s: float, request: ev.RequestId, outcome: str) -> None:
        model, arrived_s = self.asked.pop(request)
        self.sums.waits[model, outcome].append(at_s - arrived_s)


class Listened:
    """The scheduler of a story."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self.next_deadline_s = story.scheduler.next_deadline_s
        self.waits = story.scheduler.waits

    def handle(self, now_s: float, event: ev.Event) -> Sequence[object]:
        """Let the story hear it."""
        commands = self._story.scheduler.handle(now_s, event)
        self._story.step(Step(now_s, event, commands))
        return commands

    def snapshot(self) -> Snapshot:
        """Give the scheduler's."""
        return self._story.scheduler.snapshot()


def told(seed: int, *, fair: bool) -> tuple[Story, dict[str, float]]:
    story = Story(seed, fair=fair)
    story.world.run()
    snapshot = story.scheduler.snapshot()
    story.counted.views = dict(snapshot.upstreams)
    return story, story.counted.samples()


@pytest.mark.parametrize("fair", [False, True], ids=["fifo", "fair"])
@pytest.mark.parametrize("first", range(0, WORLDS, CHUNK))
def test_metrics_equal_a_fold_of_the_same_steps(first: int, fair: bool) -> None:
    for seed in range(first, first + CHUNK):
        story, samples = told(seed, fair=fair)
        check_waits(story, samples)
        check_states(story, samples)
        check_counts(story, samples)


def check_waits(story: Story, samples: dict[str, float]) -> None:
    fleet = story.fold.fleet
    stayed = stayed_all_along(story)
    for model in fleet.models.keys() & stayed:
        mine = {outcome: waits for (asked, outcome), waits in story.sums.waits.items() if asked == model}
        for outcome in ("admitted", "timeout", "disconnect", "rejected"):
            where = f'{{model="{model}",outcome="{outcome}"}}'
            assert samples["queue_wait_seconds_count" + where] == len(mine.get(outcome, []))
            assert isclose(samples["queue_wait_seconds_sum" + where], sum(mine.get(outcome, [])), abs_tol=1e-6)
        by_cause = sum_of(samples.items(), "request_wait_seconds_total", f'model="{model}"')
        assert isclose(by_cause, sum(map(sum, mine.values())), abs_tol=1e-6), "the causes sum to the waits"


def check_states(story: Story, samples: dict[str, float]) -> None:
    for model in story.fold.fleet.models.keys() & stayed_all_along(story):
        for state in State:
            spent_s = samples[f'model_state_seconds_total{{model="{model}",state="{state}"}}']
            assert isclose(spent_s, story.sums.spent[model, state], abs_tol=1e-6), (model, state)
    for view in story.scheduler.snapshot().upstreams.values():
        life = story.counted.metrics._fold.lives[view.model]
        assert (life.state, life.in_flight) == (view.state, view.in_flight)
    by_phase = {p: samples[f'gpu_phase_seconds_total{{gpu="0",phase="{p}"}}'] for p in ("serving", "swapping")}
    assert isclose(by_phase["serving"], story.sums.served_s, abs_tol=1e-6)
    assert isclose(by_phase["swapping"], story.sums.moving_s, abs_tol=1e-6)
    assert isclose(sum_of(samples.items(), "gpu_phase_seconds_total"), story.at_s, abs_tol=1e-6)
    assert isclose(sum_of(samples.items(), "swap_lost_gpu_seconds_total"), story.sums.moving_s, abs_tol=1e-6)


def check_counts(story: Story, samples: dict[str, float]) -> None:
    counts = story.sums.counts
    assert samples["metrics_errors_total"] == 0
    made = {
        d: samples[f'scheduler_decisions_total{{decision="{d}"}}']
        for d in ("serve", "join_swap", "start_swap", "reject")
    }
    assert made["serve"] + made["join_swap"] == counts["dispatch"]
    assert made["start_swap"] == counts["begun"] == sum_of(samples.items(), "swap_triggers_total")
    assert made["reject"] == counts["reject"]
    over = counts["swap ok"] + counts["swap failed"] + counts["stopped on its way"]
    assert sum_of(samples.items(), "swaps_by_caller_total") == over - wakes_failed_then_stopped(story)
    if nobody_went(story):
        assert sum_of(samples.items(), "swaps_total", 'outcome="ok"') == counts["swap ok"]
        assert sum_of(samples.items(), "model_exits_total", 'reason="start_failed"') == counts["exit start_failed"]
        by_itself = ("crash", "oom_killed", "health")
        exits = sum(sum_of(samples.items(), "model_exits_total", f'reason="{reason}"') for reason in by_itself)
        assert exits == counts["exit by itself"]


def wakes_failed_then_stopped(story: Story) -> int:
    """Count the stops of what had failed to wake: that swap was over before."""
    causes = [c.cause for step in story.world.steps for c in step.commands if isinstance(c, Stop)]
    return causes.count(StopCause.WAKE_FAILED)


def stayed_all_along(story: Story) -> set[ModelId]:
    """Name the models that were there at first and no reload took out: of others, only their last stay is counted."""
    return set.intersection(*(set(fleet.models) for fleet in story.fleets))


def nobody_went(story: Story) -> bool:
    return set.union(*(set(fleet.models) for fleet in story.fleets)) == stayed_all_along(story)


def test_the_worlds_show_every_cause_and_every_kind_of_swap() -> None:
    seen: Counter[str] = Counter()
    for seed in range(WORLDS):
        _, samples = told(seed, fair=seed % 2 == 0)
        for series, value in samples.items():
            if value:
                seen[series.partition("{")[0]] += 1
                for label in ("cause", "kind", "outcome", "decision", "phase"):
                    if f'{label}="' in series:
                        seen[f"{label} {series.partition(f'{label}=')[2].split(chr(34))[1]}"] += 1
    wanted = ["cause swap", "cause drain", "cause concurrency", "cause policy", "kind cold", "kind wake1"]
    wanted += [
        "outcome ok",
        "outcome aborted",
        "outcome timeout",
        "outcome exit",
        "outcome unhealthy",
        "outcome disconnect",
    ]
    wanted += ["decision hold_policy", "decision join_swap", "swap_thrash_total", "phase serving", "phase swapping"]
    assert [kind for kind in wanted if seen[kind] < 5] == []
