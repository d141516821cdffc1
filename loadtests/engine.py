"""Acts a scenario's callers out in real time: pauses, calls at once or in the background, patience, further tries.

What a call comes to is the business of `Ask`; nothing here knows HTTP or Locust.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import gevent
from gevent.pool import Group

from loadtests.samples import Ending, Sample
from loadtests.script import Actor, Call

REFUSED_PAUSE_S = 1.0  # as in the simulator: nobody hears of a refusal and comes again in no time
AGAIN = (Ending.REFUSED, Ending.FAILED, Ending.CUT, Ending.GAVE_UP)

# Makes one try: of which actor, which call, its number among the actor's, which try, whether it is the last.
Ask = Callable[[Actor, Call, int, int, bool], Sample]


@dataclass
class Player:
    """One caller at work.

    Attributes:
        real_s: Real seconds for one of the scenario's.
        ask: Makes a try, and returns when it is over.
        closing: Says that the run is ending: nothing new is begun.
        calls: How many it has begun.
        open: What it does besides its own turn: calls at once, calls that it does not wait for.
    """

    actor: Actor
    real_s: float
    ask: Ask
    closing: Callable[[], bool]
    calls: int = 0
    open: Group = field(default_factory=Group)

    def play(self) -> None:
        """Play until the caller is through, calls in the background included; most never are."""
        for turn in self.actor.turns():
            gevent.sleep(turn.after_s * self.real_s)
            if self.closing():
                break
            waited = [self._begin(call) for call in turn.calls]
            if turn.wait and waited:
                gevent.joinall(waited)
                ended = [each.value for each in waited if each.value is not None]
                if ended and max(ended, key=lambda sample: sample.at_s + sample.e2e_s).ending is Ending.REFUSED:
                    gevent.sleep(REFUSED_PAUSE_S * self.real_s)
        self.open.join()

    def stop(self) -> None:
        """End whatever is open."""
        self.open.kill()

    def _begin(self, call: Call) -> gevent.Greenlet:
        self.calls += 1
        return self.open.spawn(self._call, call, self.calls)

    def _call(self, call: Call, number: int) -> Sample:
        """Try until it is answered, or not to be tried again."""
        tries = len(call.retries_s) + 1
        for attempt in range(1, tries + 1):
            sample = self.ask(self.actor, call, number, attempt, attempt == tries)
            if sample.last:
                return sample
            gevent.sleep(call.retries_s[attempt - 1] * self.real_s)
            if self.closing():
                return sample
        raise AssertionError("the last try is the last")
