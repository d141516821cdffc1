"""One GPU box in virtual time: the real scheduler, upstreams that take their time, callers who act out their scripts.

Nothing here decides who is served: that is the scheduler's. Every step is shown to observers, as the run loop does.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any

from llmswap.core import events as ev
from llmswap.core.commands import Command, Dispatch, Reject, Sleep, Start, Stop, StopCause, Wake
from llmswap.core.fleet import Fleet, ModelId
from llmswap.core.scheduler import Scheduler
from llmswap.core.step import Observer, Step
from llmswap.sim.whatif.workload import Answer, Call, Caller, Ending, Script, Turn, Workload

REFUSED_PAUSE_S = 1.0  # nobody hears of a refusal and comes again in no time
PROGRESS_TELLS = 100  # how often, in all, progress is told

Listener = Callable[[Answer], None]
Progress = Callable[[float], None]


@dataclass(slots=True, eq=False)
class _Actor:
    """A caller and how far they are.

    Attributes:
        open: Calls of the current turn that have not ended.
        answers: To the calls of the current turn, by their place in it.
        lives: By model, the life of the upstream that last answered them.
    """

    caller: Caller
    script: Script
    open: int = 0
    answers: dict[int, Answer] = field(default_factory=dict)
    lives: dict[ModelId, ev.Generation] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Try:
    """A call on its way, in its latest try.

    Attributes:
        place: Among the calls of its turn; None if nobody waits for it.
        quits_s: When its caller hangs up.
        life: Who serves it.
        ending: What its lease will end with.
    """

    actor: _Actor
    call: Call
    place: int | None
    came_s: float
    request: ev.RequestId
    quits_s: float
    tries: int = 1
    dispatched_s: float | None = None
    life: ev.Generation | None = None
    cold: bool = False
    ending: Ending = Ending.DONE


def play(  # noqa: PLR0913  what, where, which and how long; the rest is for who watches
    workload: Workload,
    fleet: Fleet,
    seed: int,
    until_s: float,
    *,
    observers: Sequence[Observer] = (),
    listeners: Sequence[Listener] = (),
    progress: Progress | None = None,
) -> int:
    """Let a workload happen to a fleet, from an empty box at time 0 on.

    Args:
        workload: What comes, and what things cost.
        fleet: The workload's models, under the policy in question.
        seed: Decides every draw. The same seed means the same demand and the same costs under every fleet.
        until_s: When the curtain falls.
        observers: Are shown every step.
        listeners: Are told the end of every call; those that are open at the end come last.
        progress: Is told the time now and then.

    Returns:
        How many events the scheduler handled.
    """
    return _Stage(workload, fleet, seed, observers, listeners).run(until_s, progress)


class _Stage:
    def __init__(
        self,
        workload: Workload,
        fleet: Fleet,
        seed: int,
        observers: Sequence[Observer],
        listeners: Sequence[Listener],
    ) -> None:
        self._scheduler = Scheduler(fleet, 0.0)
        self._observers = observers
        self._listeners = listeners
        self._costs = workload.costs
        self._rngs = {model: _stream(seed, "model", model) for model in workload.costs}
        self._now_s = 0.0
        self._agenda: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._numbers = itertools.count()
        self._requests = map(ev.RequestId, itertools.count())
        self._tries: dict[ev.RequestId, _Try] = {}  # those that wait or are served
        self._open: dict[_Try, None] = {}  # and those that will be made again
        self._loading: dict[ModelId, ev.Generation] = {}
        self._events = 0
        self._seed = seed
        self._entered = itertools.count()
        for caller in workload.callers:
            self._enter(caller)
        for order in workload.orders:
            self._at(order.at_s, self._post, order.event)

    def run(self, until_s: float, progress: Progress | None) -> int:
        agenda, scheduler = self._agenda, self._scheduler
        tell_s = until_s / PROGRESS_TELLS if progress is not None else until_s
        while True:
            due_s = scheduler.next_deadline_s()
            if due_s is not None and (not agenda or due_s < agenda[0][0]):
                self._at(max(due_s, self._now_s), self._post, ev.DeadlineReached())
            if not agenda:
                break
            at_s, _, action, about = heapq.heappop(agenda)
            if at_s > until_s:
                break
            if progress is not None and at_s >= tell_s:
                progress(at_s)
                tell_s = at_s + until_s / PROGRESS_TELLS
            self._now_s = at_s
            action(about)
        self._now_s = until_s
        for tried in tuple(self._open):
            self._tell(tried, Ending.OPEN)
        return self._events

    def _at(self, at_s: float, action: Callable[[Any], None], about: object) -> None:
        heapq.heappush(self._agenda, (at_s, next(self._numbers), action, about))

    def _post(self, event: ev.Event) -> None:
        self._events += 1
        commands = self._scheduler.handle(self._now_s, event)
        if self._observers:
            step = Step(self._now_s, event, commands)
            for observer in self._observers:
                observer(step)
        for command in commands:
            self._perform(command)

    # The box

    def _perform(self, command: Command) -> None:
        match command:
            case Dispatch():
                self._serve(command)
            case Reject(request):
                self._fail(self._tries.pop(request), Ending.REFUSED)
            case Start(model, generation):
                self._loading[model] = generation
                takes_s = self._costs[model].load.draw(self._rngs[model])
                self._at(self._now_s + takes_s, self._loaded, (model, generation))
            case Stop(model, generation):
                self._loading.pop(model, None)
                takes_s = self._costs[model].stop.draw(self._rngs[model])
                self._at(self._now_s + takes_s, self._post, ev.UpstreamStopped(model, generation))
                if command.cause is StopCause.UNLOAD:
                    self._cut(generation)
            case Sleep(model, generation):
                takes_s = self._costs[model].sleep.draw(self._rngs[model])
                self._at(self._now_s + takes_s, self._post, ev.UpstreamAsleep(model, generation))
            case Wake(model, generation):
                self._loading[model] = generation
                takes_s = self._costs[model].wake.draw(self._rngs[model])
                self._at(self._now_s + takes_s, self._loaded, (model, generation))

    def _loaded(self, life: tuple[ModelId, ev.Generation]) -> None:
        model, generation = life
        if self._loading.get(model) == generation:
            del self._loading[model]
            self._post(ev.UpstreamReady(model, generation))

    def _cut(self, life: ev.Generation) -> None:
        for request, tried in self._tries.items():
            if tried.life == life:
                tried.ending = Ending.CUT
                self._at(self._now_s, self._finish, request)

    def _serve(self, dispatch: Dispatch) -> None:
        tried, now_s = self._tries[dispatch.request], self._now_s
        lives, model, life = tried.actor.lives, dispatch.model, dispatch.generation
        tried.dispatched_s, tried.life = now_s, life
        tried.cold = lives.get(model, life) != life
        lives[model] = life
        ends_s = now_s + tried.call.service_s + (tried.call.cold_s if tried.cold else 0.0)
        if ends_s > tried.quits_s:
            ends_s, tried.ending = tried.quits_s, Ending.HUNG_UP
        self._at(ends_s, self._finish, dispatch.request)

    def _finish(self, request: ev.RequestId) -> None:
        tried = self._tries.pop(request, None)
        if tried is None:
            return  # it was cut off
        self._post(ev.RequestFinished(request))
        if tried.ending is Ending.DONE:
            self._end(tried, Ending.DONE)
        else:
            self._fail(tried, tried.ending)

    # Callers

    def _enter(self, caller: Caller) -> None:
        script = caller.script(_stream(self._seed, "caller", next(self._entered), caller.name))
        actor = _Actor(caller, script)
        for turn in itertools.islice(script, 1):
            self._at(self._now_s + turn.after_s, self._act, (actor, turn))

    def _resume(self, actor: _Actor, answers: tuple[Answer, ...], pause_s: float = 0.0) -> None:
        try:
            turn = actor.script.send(answers)
        except StopIteration:
            return
        self._at(self._now_s + pause_s + turn.after_s, self._act, (actor, turn))

    def _act(self, about: tuple[_Actor, Turn]) -> None:
        actor, turn = about
        waits = turn.wait and bool(turn.calls)
        actor.open = len(turn.calls) if waits else 0
        for place, call in enumerate(turn.calls):
            request = next(self._requests)
            tried = _Try(actor, call, place if waits else None, self._now_s, request, self._now_s + call.patience_s)
            self._open[tried] = None
            self._ask(tried)
        for caller in turn.along:
            self._enter(caller)
        if not waits:
            self._resume(actor, ())

    def _ask(self, tried: _Try) -> None:
        call, request = tried.call, tried.request
        self._tries[request] = tried
        quits_s = min(tried.quits_s, self._now_s + call.waits_s)
        if quits_s != inf:
            self._at(quits_s, self._hang_up, request)
        self._post(ev.RequestArrived(request, call.model, tried.actor.caller.name, call.swap_class))

    def _ask_again(self, tried: _Try) -> None:
        tried.request = next(self._requests)
        tried.quits_s = self._now_s + tried.call.patience_s
        tried.tries += 1
        tried.dispatched_s, tried.life, tried.cold, tried.ending = None, None, False, Ending.DONE
        self._ask(tried)

    def _hang_up(self, request: ev.RequestId) -> None:
        tried = self._tries.get(request)
        if tried is None or tried.life is not None:
            return  # it has ended, or is being served: then the end of its lease is set
        del self._tries[request]
        self._post(ev.RequestCancelled(request))
        self._fail(tried, Ending.HUNG_UP)

    def _fail(self, tried: _Try, ending: Ending) -> None:
        retries_s = tried.call.retries_s
        if tried.tries <= len(retries_s):
            self._at(self._now_s + retries_s[tried.tries - 1], self._ask_again, tried)
        else:
            self._end(tried, ending)

    def _end(self, tried: _Try, ending: Ending) -> None:
        answer = self._tell(tried, ending)
        if tried.place is None:
            return
        actor = tried.actor
        actor.answers[tried.place] = answer
        actor.open -= 1
        if actor.open == 0:
            answers = tuple(answer for _, answer in sorted(actor.answers.items()))
            actor.answers.clear()
            self._resume(actor, answers, REFUSED_PAUSE_S if ending is Ending.REFUSED else 0.0)

    def _tell(self, tried: _Try, ending: Ending) -> Answer:
        del self._open[tried]
        answer = Answer(
            self._now_s,
            tried.actor.caller.name,
            tried.call,
            ending,
            tried.request,
            tried.came_s,
            tried.dispatched_s,
            tried.tries,
            tried.cold,
        )
        for listener in self._listeners:
            listener(answer)
        return answer


def _stream(*words: object) -> Random:
    """Make random numbers that depend on nothing but these words."""
    return Random("/".join(map(str, words)))  # noqa: S311  replayed from the seed on purpose
