"""Asking an engine to count, where nobody else asks it to: `stream_options.include_usage`, and taking that back.

What is learnt of an engine holds for one life of it, because the next may be another program.
"""

import logging
import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from llmswap.config.settings import Filters, ModelSettings
from llmswap.core.events import Generation
from llmswap.core.fleet import ModelId
from llmswap.proxy.dialects import Ask
from llmswap.proxy.hop.messages import Delivery, End, Head, Outgoing
from llmswap.proxy.metering.meter import Meter
from llmswap.proxy.metering.sieve import Sieve

log = logging.getLogger(__name__)

ASKED_BODY_MAX = 4 * 1024 * 1024
"""Bytes of a request's body beyond which nothing is asked for: a second copy of it would be held meanwhile."""

_PATHS = ("/chat/completions", "/completions")
_WISH = b'"stream_options":{"include_usage":true}'
_OURS = ("stream", "stream_options")
_REFUSALS = frozenset((400, 422))
# llama.cpp's last chunk has `timings`, unless usage is asked for; the flags are vLLM's and SGLang's.
_TELLS = re.compile(r"llama-?server|llama\.?cpp\b|force-include-usage|default-include-usage")


class Manner(Enum):
    """How an engine is about counting."""

    ASKED = auto()  # it says what it counts when asked to, as far as is known
    UNASKED = auto()  # it says that anyway
    REFUSES = auto()  # it does not know the question, or its answers cannot be sifted


class UsageAsk:
    """One request with the wish added, and its answer without what came of it; see Addition.

    Attributes:
        outgoing: With the wish.
        plain: As it would be without it.
        refused: The engine did not take it, or its answer could not have been sifted.
    """

    def __init__(self, outgoing: Outgoing, meter: Meter) -> None:
        assert isinstance(outgoing.body, bytes)
        self.plain = outgoing
        self.outgoing = Outgoing(outgoing.method, outgoing.target, outgoing.headers, _with_wish(outgoing.body))
        self.refused = False
        self._sieve: Sieve | None = None
        self._meter = meter

    @property
    def taken(self) -> bool:
        """Whether there was something to take back."""
        return self._sieve is not None and self._sieve.taken

    def stands(self, head: Head) -> bool:
        """See the head; see Addition."""
        if head.is_sse:
            self.refused = head.encoded or head.length is not None
            self._sieve = Sieve(lambda: self._meter.tally.finished)
        else:
            self.refused = head.status in _REFUSALS
        return not self.refused

    def sift(self, data: bytes) -> bytes:
        """Take our event out; see Addition."""
        return data if self._sieve is None else self._sieve.sift(data)

    def rest(self) -> bytes:
        """Give what is held; see Addition."""
        return b"" if self._sieve is None else self._sieve.rest()


@dataclass(slots=True)
class Measure:
    """How one answer is metered.

    Attributes:
        wish: What was added to the request, if anything was.
        unasked: Nothing was, because the engine says it anyway, or so it seems.
    """

    meter: Meter
    wish: UsageAsk | None = None
    unasked: bool = False


class Manners:
    """What is known of each model's engine, in its present life."""

    def __init__(self) -> None:
        self._known: dict[ModelId, tuple[Generation, Manner]] = {}

    def measure(self, ask: Ask, serving: ModelSettings, generation: Generation, outgoing: Outgoing) -> Measure:
        """Find out how to meter the answer to a request, and add the wish to that where it is needed."""
        path = outgoing.target.partition("?")[0]
        measure = Measure(Meter(path))
        if ask.stream and path.endswith(_PATHS) and _may_ask(ask, serving.filters, outgoing):
            manner = self._of(serving, generation)
            measure.unasked = manner is Manner.UNASKED
            if manner is Manner.ASKED:
                measure.wish = UsageAsk(outgoing, measure.meter)
        return measure

    def learn(self, model: ModelId, generation: Generation, measure: Measure, delivery: Delivery) -> None:
        """See what became of it, and what that says of the engine."""
        if delivery.upstream_status != 200:
            return
        meter, wish = measure.meter, measure.wish
        if wish is None:
            silent = measure.unasked and meter.events and not meter.tally.counted
            if silent and delivery.end is End.COMPLETE:
                self._known[model] = generation, Manner.ASKED
        elif wish.refused:
            log.info("%s does not take stream_options: its tokens are counted as they come", model)
            self._known[model] = generation, Manner.REFUSES
        elif meter.tally.timed or meter.tally.rides:
            self._known[model] = generation, Manner.UNASKED

    def _of(self, serving: ModelSettings, generation: Generation) -> Manner:
        known = self._known.get(serving.id)
        if known is not None and known[0] == generation:
            return known[1]
        return Manner.UNASKED if _tells(serving.launch.cmd) else Manner.ASKED


def _may_ask(ask: Ask, filters: Filters, outgoing: Outgoing) -> bool:
    """Tell whether a request for a stream says nothing of usage itself, and may be edited.

    Filters that concern it are somebody's will, too: `stripParams: stream_options` keeps the wish from a model.
    """
    if not isinstance(outgoing.body, bytes) or len(outgoing.body) > ASKED_BODY_MAX:
        return False
    if ask.stream_options or _concerned(filters):
        return False
    return "application/json" in outgoing.headers.get("Content-Type", "").lower()


def _with_wish(body: bytes) -> bytes:
    """Put the wish last into a JSON object that is known to have members."""
    end = body.rindex(b"}")
    return b"%b,%b%b" % (body[:end], _WISH, body[end:])


def _concerned(filters: Filters) -> bool:
    if not filters:
        return False
    paths = (*filters.strip, *filters.set, *(path for by_name in filters.set_by_name.values() for path in by_name))
    return any(path.partition(".")[0] in _OURS for path in paths)


@lru_cache(maxsize=1024)
def _tells(command: str) -> bool:
    return _TELLS.search(command) is not None
