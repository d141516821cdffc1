"""Which requests are traced: decided once, before the first span of them is written. Swaps always are."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from llmswap.config.settings import TelemetrySettings
from llmswap.telemetry.trace_context import TraceContext

log = logging.getLogger(__name__)

_LOW_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Sampler:
    """Decides on one request.

    Attributes:
        of_hits: Share of the requests that are kept whose model was up; `of_misses`, of those that waited for a swap.
        follows: A parent's decision, where it is trusted, goes before.
    """

    of_hits: float = 1.0
    of_misses: float = 1.0
    follows: bool = True

    def keeps(self, trace_id: int, parent: TraceContext | None, *, missed: bool) -> bool:
        """Decide. The same trace is decided on in the same way by whoever has the same share."""
        if parent is not None and self.follows:
            return parent.sampled
        share = self.of_misses if missed else self.of_hits
        return (trace_id & _LOW_64) < _bound(share)


@lru_cache(maxsize=16)
def _bound(share: float) -> int:
    return round(share * (_LOW_64 + 1))


_BY_WORD = {"always": Sampler(), "never": Sampler(0.0, 0.0)}


def sampler_of(settings: TelemetrySettings, environ: Mapping[str, str]) -> Sampler:
    """Give the configured sampler, else that of OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG, else all."""
    if settings.sampler:
        return _BY_WORD.get(settings.sampler, Sampler(of_hits=settings.ratio))
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    base = name.removeprefix("parentbased_")
    follows = base != name or not name
    match base:
        case "" | "always_on":
            return Sampler(follows=follows)
        case "always_off":
            return Sampler(0.0, 0.0, follows)
        case "traceidratio":
            share = _share(environ.get("OTEL_TRACES_SAMPLER_ARG", ""))
            return Sampler(share, share, follows)
    log.warning("OTEL_TRACES_SAMPLER=%s is not known here: every request is traced", name[:40])
    return Sampler()


def _share(text: str) -> float:
    try:
        share = float(text) if text.strip() else 1.0
    except ValueError:
        share = -1.0
    if 0.0 <= share <= 1.0:
        return share
    log.warning("OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1: every request is traced")
    return 1.0
