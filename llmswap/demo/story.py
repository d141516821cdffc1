"""What has happened so far, as the view and the summary tell it. An observer of the scheduler's Steps."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from llmswap.core.commands import Dispatch, Reject, Start, Stop, StopCause
from llmswap.core.events import (
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    StartFailed,
    UpstreamExited,
    UpstreamReady,
    UpstreamStopped,
)
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step

LINES_MAX = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened.

    Attributes:
        at_s: Seconds since the demo began.
        kind: What to colour it by: load, evict, bad, or client.
    """

    at_s: float
    kind: str
    text: str


class Story:
    """Counts and lines.

    Attributes:
        swaps: Starts that evicted somebody.
        lost_s: Time during which requests waited while something was being loaded or stopped.
        served: Model -> requests that ended well or badly after being dispatched.
    """

    def __init__(self, tell: Callable[[Line], None] | None = None) -> None:
        self.began_s = time.monotonic()
        self.lines: deque[Line] = deque(maxlen=LINES_MAX)
        self.loads = 0
        self.swaps = 0
        self.lost_s = 0.0
        self.served: Counter[ModelId] = Counter()
        self._tell = tell
        self._moving: dict[ModelId, float] = {}
        self._waiting: dict[int, ModelId] = {}
        self._serving: dict[int, ModelId] = {}
        self._seen_s = self.began_s

    def elapsed_s(self) -> float:
        """Give seconds since the demo began."""
        return time.monotonic() - self.began_s

    def add(self, kind: str, text: str) -> None:
        """Add a line."""
        line = Line(self.elapsed_s(), kind, text)
        self.lines.append(line)
        if self._tell:
            self._tell(line)

    def __call__(self, step: Step) -> None:
        """Take a Step into the story."""
        if self._moving and self._waiting:
            self.lost_s += step.at_s - max(self._seen_s, self.began_s)
        self._seen_s = step.at_s
        self._take_event(step)
        for command in step.commands:
            match command:
                case Start(model=model, evicted=evicted):
                    self._moving[model] = step.at_s
                    self.loads += 1
                    self.swaps += bool(evicted)
                    self.add("load", f"loading {model}" + (f" in place of {' and '.join(evicted)}" if evicted else ""))
                case Stop(model=model, cause=cause, evicted_for=heir):
                    self._moving[model] = step.at_s
                    why = f"to make room for {heir}" if cause is StopCause.EVICT else f"({cause})"
                    self.add("evict", f"stopping {model} {why}")
                case Dispatch(request=request, model=model):
                    self._waiting.pop(request, None)
                    self._serving[request] = model
                case Reject(request=request):
                    self._waiting.pop(request, None)

    def _take_event(self, step: Step) -> None:
        match step.event:
            case RequestArrived(request=request, model=model):
                self._waiting[request] = model
            case RequestCancelled(request=request):
                self._waiting.pop(request, None)
            case RequestFinished(request=request):
                self.served[self._serving.pop(request)] += 1
            case UpstreamReady(model=model):
                self.add("load", f"{model} is ready after {self._took_s(step, model):.1f} s")
            case UpstreamStopped(model=model):
                self.add("evict", f"{model} has stopped after {self._took_s(step, model):.1f} s")
            case StartFailed(model=model, reason=reason):
                self._moving.pop(model, None)
                self.add("bad", f"{model} failed to start: {reason}")
            case UpstreamExited(model=model, reason=reason):
                self.add("bad", f"{model} died: {reason}")

    def _took_s(self, step: Step, model: ModelId) -> float:
        return step.at_s - self._moving.pop(model, step.at_s)

    def summary(self) -> str:
        """Tell it all in two lines."""
        whole_s = self.elapsed_s()
        requests = sum(self.served.values())
        each = ", ".join(f"{count} by {model}" for model, count in sorted(self.served.items()))
        return (
            f"{requests} requests served in {whole_s:.1f} s{f' ({each})' if each else ''}\n"
            f"{self.loads} loads, {self.swaps} of them swaps; "
            f"somebody waited for one during {self.lost_s:.1f} s ({self.lost_s / max(whole_s, 0.001):.0%})"
        )
