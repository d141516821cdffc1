"""`GET /api/queue`: who waits for what and why, and what the scheduler decided lately. Only tells; decides nothing."""

import time
from typing import Any

from aiohttp import web

from llmswap.core.explanation import Alternative, Decision, Obstacle, Wait
from llmswap.proxy.admin import as_json
from llmswap.proxy.context import CONTEXT

REQUESTS_MAX = 100  # shown of those who wait for one model


async def queue(request: web.Request) -> web.Response:
    """Give the waits, and the last decisions with what each was weighed against."""
    loop = request.app[CONTEXT].loop
    clock = _Clock()
    waits = [_wait(wait, clock) for wait in loop.waits(REQUESTS_MAX)]
    decisions = [_decision(decision, clock) for decision in reversed(loop.decisions())]
    return as_json({"now": clock.now, "waiting": waits, "decisions": decisions})


class _Clock:
    """One moment, in both kinds of time."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()
        self.now = round(time.time(), 3)

    def unix(self, at_s: float) -> float:
        """Turn monotonic time into seconds since 1970."""
        return round(self.now + at_s - self.now_s, 3)

    def since(self, at_s: float) -> float:
        """Give the seconds that have passed."""
        return round(max(0.0, self.now_s - at_s), 3)


def _wait(wait: Wait, clock: _Clock) -> dict[str, Any]:
    return {
        "model": wait.model,
        "waiting": wait.waiting,
        "due": wait.due,
        **_obstacle(wait.obstacle, clock.now_s),
        "ready_in_s": None if wait.ready_at_s is None else _rounded(max(0.0, wait.ready_at_s - clock.now_s)),
        "requests": [
            {
                "id": one.request,
                "caller": one.caller,
                "since": clock.unix(one.arrived_s),
                "waited_s": clock.since(one.arrived_s),
            }
            for one in wait.requests
        ],
    }


def _decision(decision: Decision, clock: _Clock) -> dict[str, Any]:
    until_s = decision.until_s
    return {
        "when": clock.unix(decision.at_s),
        "ago_s": clock.since(decision.at_s),
        "verb": decision.verb,
        "model": decision.model,
        "rule": decision.rule,
        "evicted": decision.evicted,
        "kept": decision.kept,
        "wanted_by": decision.wanted_by,
        "until_s": None if until_s is None else _rounded(until_s - decision.at_s),
        "caller": decision.caller,
        "waiting": decision.waiting,
        "waited_s": _rounded(decision.waited_s),
        "alternatives": [_alternative(one, decision.at_s) for one in decision.alternatives],
    }


def _alternative(alternative: Alternative, at_s: float) -> dict[str, Any]:
    return {
        "model": alternative.model,
        "waiting": alternative.waiting,
        "waited_s": _rounded(alternative.waited_s),
        **_obstacle(alternative.obstacle, at_s),
    }


def _obstacle(obstacle: Obstacle, at_s: float) -> dict[str, Any]:
    until_s = obstacle.until_s
    left_s = None if until_s is None else _rounded(max(0.0, until_s - at_s))
    return {"why": obstacle.why, "whom": obstacle.whom, "until_s": left_s}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
