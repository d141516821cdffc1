"""What a run was worth, folded from its Steps: simulated and recorded runs are judged by the same code."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Reject, RejectReason, Sleep, SleepCause, Start, Stop, StopCause, Wake
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step

PING_PONG_LOADS = 2.0  # evicted for its own victim this soon, in its own load times: the swap was for nothing


@dataclass(frozen=True, slots=True)
class Waits:
    """How long some requests waited, from arrival to dispatch.

    Who gave up, was refused after a wait, or still waits at the end counts with the wait so far; who was refused at
    once did not wait and does not count.

    Attributes:
        completed: How many of the requests were served to their end.
    """

    requests: float = 0
    completed: float = 0
    p50_s: float = 0.0
    p95_s: float = 0.0
    worst_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """One run. Counts are floats because a mean over several runs is a Score, too.

    Attributes:
        requests: That arrived.
        completed: Served to their end.
        rejected: By reason.
        cancelled: Gave up while they waited.
        unanswered: Still waited at the end.
        swaps: Starts and wakes.
        swap_s: What they took, summed: from the first eviction for one until it was ready.
        lost_s: Time in which a swap was on and nobody was served: GPU time lost to swapping.
        evictions: (who went, for whom) -> how often.
        ping_pongs: Swaps undone within twice their load time, by the very model that had to go for them.
        hits: Requests whose model was up when they came.
        misses: Requests that waited for a swap.
        substituted: Requests served by another model than they asked for.
        in_flight: Mean number of requests being served.
    """

    duration_s: float = 0.0
    requests: float = 0
    completed: float = 0
    rejected: Mapping[RejectReason, float] = field(default_factory=dict)
    cancelled: float = 0
    unanswered: float = 0
    swaps: float = 0
    swap_s: float = 0.0
    lost_s: float = 0.0
    evictions: Mapping[tuple[ModelId, ModelId], float] = field(default_factory=dict)
    ping_pongs: float = 0
    hits: float = 0
    misses: float = 0
    substituted: float = 0
    in_flight: float = 0.0
    waits: Waits = field(default_factory=Waits)
    by_model: Mapping[ModelId, Waits] = field(default_factory=dict)
    by_caller: Mapping[str, Waits] = field(default_factory=dict)

    @property
    def completed_per_h(self) -> float:
        """Completions per hour."""
        return 3600.0 * self.completed / self.duration_s if self.duration_s else 0.0

    @property
    def lost_share(self) -> float:
        """Share of the time that was lost to swapping, 0 to 1."""
        return self.lost_s / self.duration_s if self.duration_s else 0.0


@dataclass(slots=True)
class _Party:
    """The requests of one caller for one model."""

    waits_s: list[float] = field(default_factory=list)
    completed: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    arrived_s: float
    model: ModelId
    party: _Party


@dataclass(slots=True)
class _Swap:
    since_s: float
    pending: set[ModelId] = field(default_factory=set)  # evicted for it, and not gone yet
    start_s: float | None = None
    evicted: tuple[ModelId, ...] = ()


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A model that was swapped in, and is up."""

    ready_s: float
    load_s: float
    evicted: tuple[ModelId, ...]


class Scorer:
    """An Observer that keeps score.

    Args:
        start_s: When the run began.
    """

    def __init__(self, start_s: float) -> None:
        self._start_s = self._now_s = start_s
        self._waiting: dict[ev.RequestId, _Request] = {}
        self._serving: dict[ev.RequestId, _Party] = {}
        self._parties: dict[tuple[ModelId, str], _Party] = {}
        self._swaps: dict[ModelId, _Swap] = {}
        self._up: dict[ModelId, _Arrived] = {}
        self._rejected: Counter[RejectReason] = Counter()
        self._evictions: Counter[tuple[ModelId, ModelId]] = Counter()
        self._requests = self._cancelled = self._starts = self._ping_pongs = 0
        self._hits = self._misses = self._substituted = 0
        self._swap_s = self._lost_s = self._serving_s = 0.0
        self._take: dict[type[Any], Callable[[Any], None]] = {
            ev.RequestArrived: self._arrived,
            ev.RequestCancelled: self._cancel,
            ev.RequestFinished: self._finished,
            ev.UpstreamReady: self._became_ready,
            ev.StartFailed: self._start_failed,
            Dispatch: self._dispatched,
            Reject: self._refused,
            Start: self._started,
            Wake: self._started,
            Stop: self._stopped,
            Sleep: self._stopped,
        }

    def __call__(self, step: Step) -> None:
        """Count a step."""
        self._advance(step.at_s)
        take = self._take.get(type(step.event))
        if take is not None:
            take(step.event)
        for command in step.commands:
            self._take[type(command)](command)
        if isinstance(step.event, ev.UpstreamStopped | ev.UpstreamAsleep):
            self._drop_idle_swaps(step.event.model)

    def score(self, end_s: float) -> Score:
        """Sum up, as of the end of the run. Call it once, after the last step."""
        self._advance(end_s)
        unanswered = len(self._waiting)
        for request in self._waiting.values():
            request.party.waits_s.append(end_s - request.arrived_s)
        self._waiting.clear()
        duration_s = end_s - self._start_s
        return Score(
            duration_s=duration_s,
            requests=self._requests,
            completed=sum(party.completed for party in self._parties.values()),
            rejected=dict(self._rejected),
            cancelled=self._cancelled,
            unanswered=unanswered,
            swaps=self._starts,
            swap_s=self._swap_s + sum(end_s - swap.since_s for swap in self._swaps.values()),
            lost_s=self._lost_s,
            evictions=dict(self._evictions.most_common()),
            ping_pongs=self._ping_pongs,
            hits=self._hits,
            misses=self._misses,
            substituted=self._substituted,
            in_flight=self._serving_s / duration_s if duration_s else 0.0,
            waits=_waits(self._parties.values()),
            by_model={
                model: _waits(party for (asked, _), party in self._parties.items() if asked == model)
                for model in dict.fromkeys(model for model, _ in self._parties)
            },
            by_caller={
                caller: _waits(party for (_, who), party in self._parties.items() if who == caller)
                for caller in dict.fromkeys(caller for _, caller in self._parties)
            },
        )

    def _advance(self, now_s: float) -> None:
        passed_s, self._now_s = now_s - self._now_s, now_s
        if self._serving:
            self._serving_s += passed_s * len(self._serving)
        elif self._swaps:
            self._lost_s += passed_s

    # Requests

    def _arrived(self, event: ev.RequestArrived) -> None:
        self._requests += 1
        party = self._parties.get((event.model, event.caller))
        if party is None:
            party = self._parties[event.model, event.caller] = _Party()
        self._waiting[event.request] = _Request(self._now_s, event.model, party)

    def _cancel(self, event: ev.RequestCancelled) -> None:
        request = self._waiting.pop(event.request, None)
        if request is not None:
            self._cancelled += 1
            request.party.waits_s.append(self._now_s - request.arrived_s)

    def _finished(self, event: ev.RequestFinished) -> None:
        party = self._serving.pop(event.request, None)
        if party is not None:  # else it was dispatched before the recording began
            party.completed += 1

    def _dispatched(self, command: Dispatch) -> None:
        request = self._waiting.pop(command.request, None)
        if request is None:
            return
        request.party.waits_s.append(self._now_s - request.arrived_s)
        self._serving[command.request] = request.party
        if command.model != request.model:
            self._substituted += 1
        if command.swap_s is None:
            self._hits += 1
        else:
            self._misses += 1

    def _refused(self, command: Reject) -> None:
        self._rejected[command.reason] += 1
        request = self._waiting.pop(command.request, None)
        if request is not None and self._now_s > request.arrived_s:
            request.party.waits_s.append(self._now_s - request.arrived_s)

    # Swaps

    def _stopped(self, command: Stop | Sleep) -> None:
        model, target = command.model, command.evicted_for
        self._end_swap(model)
        life = self._up.pop(model, None)
        if command.cause not in (StopCause.EVICT, SleepCause.EVICT) or target is None:
            return
        self._evictions[model, target] += 1
        self._swaps.setdefault(target, _Swap(self._now_s)).pending.add(model)
        if life and target in life.evicted and self._now_s - life.ready_s <= PING_PONG_LOADS * life.load_s:
            self._ping_pongs += 1

    def _started(self, command: Start | Wake) -> None:
        self._starts += 1
        swap = self._swaps.setdefault(command.model, _Swap(self._now_s))
        swap.start_s, swap.evicted = self._now_s, command.evicted

    def _became_ready(self, event: ev.UpstreamReady) -> None:
        swap = self._end_swap(event.model)
        if swap is not None and swap.start_s is not None:
            self._up[event.model] = _Arrived(self._now_s, self._now_s - swap.start_s, swap.evicted)

    def _start_failed(self, event: ev.StartFailed) -> None:
        self._end_swap(event.model)

    def _end_swap(self, model: ModelId) -> _Swap | None:
        swap = self._swaps.pop(model, None)
        if swap is not None:
            self._swap_s += self._now_s - swap.since_s
        return swap

    def _drop_idle_swaps(self, gone: ModelId) -> None:
        """Forget swaps that made room and then started nobody: all who waited had left."""
        for target, swap in tuple(self._swaps.items()):
            swap.pending.discard(gone)
            if swap.start_s is None and not swap.pending:
                self._end_swap(target)


def _waits(parties: Iterable[_Party]) -> Waits:
    parties = tuple(parties)
    waits_s = sorted(wait_s for party in parties for wait_s in party.waits_s)
    completed = sum(party.completed for party in parties)
    if not waits_s:
        return Waits(completed=completed)
    return Waits(len(waits_s), completed, quantile(waits_s, 0.5), quantile(waits_s, 0.95), waits_s[-1])


def quantile(ordered: list[float], share: float) -> float:
    """Give the smallest value that at least this share of the ordered values does not exceed."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def mean(scores: Sequence[Score]) -> Score:
    """Give what runs of one policy came to on average; the worst wait is the worst of all."""

    def average(values: Iterable[float]) -> float:
        return sum(values) / len(scores)

    def by_key(name: str) -> dict[Any, float]:
        tables = [getattr(score, name) for score in scores]
        return {key: average(table.get(key, 0) for table in tables) for key in _keys(tables)}

    def waits_by_key(name: str) -> dict[Any, Waits]:
        tables = [getattr(score, name) for score in scores]
        return {key: _mean_waits([table[key] for table in tables if key in table]) for key in _keys(tables)}

    plain = [entry.name for entry in fields(Score) if entry.type in (float, "float")]
    return Score(
        **{name: average(getattr(score, name) for score in scores) for name in plain},
        rejected=by_key("rejected"),
        evictions=by_key("evictions"),
        waits=_mean_waits([score.waits for score in scores]),
        by_model=waits_by_key("by_model"),
        by_caller=waits_by_key("by_caller"),
    )


def _keys(tables: Iterable[Mapping[Any, Any]]) -> dict[Any, None]:
    return dict.fromkeys(key for table in tables for key in table)


def _mean_waits(all_waits: Sequence[Waits]) -> Waits:
    def average(values: Iterable[float]) -> float:
        return sum(values) / len(all_waits)

    return Waits(
        average(waits.requests for waits in all_waits),
        average(waits.completed for waits in all_waits),
        average(waits.p50_s for waits in all_waits),
        average(waits.p95_s for waits in all_waits),
        max(waits.worst_s for waits in all_waits),
    )
