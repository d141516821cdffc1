"""The failures that can be armed, from the command line or live: names, arguments and counting.

Each fault's effect is beside the behaviour it spoils, which asks `fires(name)` on every occasion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

# Name -> (arguments, what it does). `[x]` may be left out. A fault without arguments takes a probability instead.
FAULTS: Mapping[str, tuple[str, str]] = {
    # starting
    "crash_at_start": ("[phase]", "exit 1 with a traceback in a boot phase (default weights)"),
    "crash_after": ("seconds", "exit 1 this long after process start, loading or serving"),
    "never_ready": ("", "boot never ends"),
    "start_oom": ("", "exit 1 as an engine that finds too little free GPU memory"),
    "port_in_use": ("", "exit 1 as if the port were taken"),
    # health
    "health_503": ("", "/health answers 503"),
    "health_hang": ("", "/health accepts and never answers"),
    "health_lies": ("[500|hang]", "/health is fine and every inference request is not"),
    # one request
    "http_status": ("code", "refuse with this status"),
    "http_429": ("", "refuse with 429 and Retry-After: 1"),
    "http_503": ("", "refuse with 503"),
    "redirect": ("url", "answer 302 to url"),
    "slow_headers": ("seconds", "wait before the response head"),
    "hang": ("", "accept a request and never answer"),
    "reset": ("", "reset the connection before the response head"),
    "reset_reused": ("", "as reset, but only on a connection that has served a request before"),
    # streams; k counts tokens already sent
    "disconnect_midstream": ("k", "reset the connection after k tokens"),
    "die_midstream": ("k", "the process kills itself (SIGKILL) after k tokens"),
    "end_midstream": ("k", "end the response cleanly after k tokens, with no last events"),
    "error_chunk": ("k", "an error event after k tokens, under status 200, then the end"),
    "stall": ("k:seconds", "a gap after k tokens"),
    "no_usage": ("", "leave usage out"),
    "null_usage": ("", "usage is null"),
    "usage_zero": ("", "usage counts are 0"),
    "bad_json_chunk": ("", "one data line that is not JSON"),
    "giant_chunk": ("[bytes]", "one token of this size (default 1 MiB)"),
    "split_utf8": ("", "a multi-byte character split between two writes"),
    "crlf": ("", "lines end in CR LF"),
    "gzip": ("", "the body is gzip-encoded, asked for or not"),
    # sleeping and waking
    "sleep_hang": ("", "sleep never answers"),
    "sleep_500": ("", "sleep answers 500"),
    "sleep_200_die": ("", "sleep answers 200, then the process exits"),
    "sleep_200_awake": ("", "sleep answers 200, but nothing falls asleep"),
    "sleep_partial_free": ("", "half of what sleep should free stays held"),
    "sleep_step_500": ("", "resetting or flushing a cache answers 500 (a later step of a sleep or wake)"),
    "die_asleep": ("[seconds]", "the process exits with 1 this long after it fell asleep (default 0)"),
    "engine_dead_asleep": ("[seconds]", "the engine dies this long after it fell asleep, its HTTP server lives on"),
    "release_busy_assert": ("", "sglang: releasing memory kills it, as if it were busy"),
    "wake_hang": ("", "wake never answers"),
    "wake_500": ("", "wake answers 500"),
    "wake_oom": ("", "wake answers 500, out of memory"),
    "wake_leak": ("", "as wake_oom, and half of what it wanted stays held"),
    "wake_200_still_asleep": ("", "wake answers 200, but nothing wakes"),
    "wake_garbage": ("", "answers are nonsense after the wake"),
    "wake_then_die": ("", "the process dies at the first request after the wake"),
    "reload_hang": ("", "reloading the weights never answers"),
    "reload_500": ("", "reloading the weights answers 500"),
    "state_query": ("[500|404|hang|shape|lie]", "asking whether it sleeps fails, has no known shape, or gets a lie"),
    # memory
    "memory_stuck": ("seconds", "given-back GPU memory stays counted this long, at sleep or exit"),
    # stopping
    "ignore_sigterm": ("", "SIGTERM does nothing"),
    "slow_stop": ("seconds", "this long from SIGTERM to exit"),
    "orphan_grandchild": ("[plain|stubborn|setsid]", "a child process outlives us; stubborn ignores SIGTERM"),
}  # fmt: skip


class BadFault(ValueError):
    """A fault that does not exist, or arguments it does not take."""


@dataclass(slots=True)
class Armed:
    """One armed fault.

    Attributes:
        nth: Fires only on this occasion, counted from 1 since it was armed; 0 for every one.
        probability: Chance to fire on an occasion.
    """

    text: str
    name: str
    args: tuple[str, ...]
    nth: int = 0
    probability: float = 1.0
    occasions: int = 0

    @classmethod
    def parse(cls, text: str) -> "Armed":
        """Read `NAME[:arg...][@nth]`.

        Raises:
            BadFault: Unknown name, wrong arguments.
        """
        head, _, nth = text.rpartition("@")
        if not head or not nth.isdecimal():
            head, nth = text, "0"
        name, _, rest = head.partition(":")
        if name not in FAULTS:
            raise BadFault(f"no fault {name!r}; there are {', '.join(FAULTS)}")
        wanted = FAULTS[name][0]
        fault = cls(text, name, tuple(rest.split(":", wanted.count(":"))) if rest else (), int(nth))
        fault._check(wanted)
        return fault

    def _check(self, wanted: str) -> None:
        usage = f"{self.text!r}: write it as {self.name}{':' + wanted if wanted else '[:probability]'}[@nth]"
        try:
            if not wanted and self.args:
                self.probability = float(self.args[0])
                self.args = ()
            for kind, arg in zip(wanted.strip("[]").split(":"), self.args, strict=False):
                if kind in ("seconds", "k", "code", "bytes") and float(arg) < 0:
                    raise BadFault(usage)
                if "|" in kind and arg not in kind.split("|"):
                    raise BadFault(usage)
        except ValueError as error:
            raise BadFault(usage) from error
        optional = wanted.startswith("[") or not wanted
        if not optional and len(self.args) != wanted.count(":") + 1:
            raise BadFault(usage)

    def number(self, index: int = 0, default: float = 0.0) -> float:
        """Give a numeric argument."""
        return float(self.args[index]) if len(self.args) > index else default

    def word(self, default: str) -> str:
        """Give the first argument as text."""
        return self.args[0] if self.args else default


class Faults:
    """All armed faults."""

    def __init__(self, texts: list[str], seed: int) -> None:
        self.armed = [Armed.parse(text) for text in texts]
        self._rng = Random(seed)

    def arm(self, text: str) -> None:
        """Add one; its occasions are counted from now."""
        self.armed.append(Armed.parse(text))

    def clear(self) -> None:
        """Disarm all."""
        self.armed.clear()

    def has(self, name: str) -> bool:
        """Say whether a fault of this name is armed. This is no occasion for it."""
        return any(fault.name == name for fault in self.armed)

    def fires(self, name: str) -> Armed | None:
        """Note an occasion for a fault of this name, and give the fault if it fires now."""
        hit = None
        for fault in self.armed:
            if fault.name == name:
                fault.occasions += 1
                if fault.nth in (0, fault.occasions) and self._rng.random() < fault.probability:
                    hit = hit or fault
        return hit
