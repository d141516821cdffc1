"""W3C trace context: which trace something belongs to, read from and written as header fields. No vendor in here."""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from random import Random

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")

_random = Random()  # noqa: S311  seeded by the system; ids must differ, not be secret


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span, named from outside.

    Attributes:
        trace_id: 128 bits, not 0; `span_id`: 64 bits, not 0.
        state: What other tracing systems wrote on it (`tracestate`).
        remote: It came with a request.
    """

    trace_id: int
    span_id: int
    sampled: bool = True
    state: str = ""
    remote: bool = False

    @property
    def header(self) -> str:
        """Write it as a `traceparent`."""
        return traceparent(self.trace_id, self.span_id, sampled=self.sampled)


def traceparent(trace_id: int, span_id: int, *, sampled: bool) -> str:
    """Write a `traceparent`, version 00."""
    return f"00-{trace_id:032x}-{span_id:016x}-{'01' if sampled else '00'}"


def parse(header: str, state: str = "") -> TraceContext | None:
    """Read a client's `traceparent` and `tracestate`; None if the former is not as W3C has it."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    trace, span = int(trace_id, 16), int(span_id, 16)
    if version == "ff" or (version == "00" and more) or not trace or not span:
        return None
    kept = state if _STATE.fullmatch(state) else ""
    return TraceContext(trace, span, bool(int(flags, 16) & 1), kept, remote=True)


def new_trace_id() -> int:
    """Draw a trace id."""
    return _random.getrandbits(128) or 1


def new_span_id() -> int:
    """Draw a span id."""
    return _random.getrandbits(64) or 1


@lru_cache(maxsize=1024)
def is_this_machine(address: str) -> bool:
    """Tell whether a client's address is loopback."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
