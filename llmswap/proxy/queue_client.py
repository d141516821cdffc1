"""`llmswap queue`: asks a running server who waits and what was decided, and says it in words. For the command line."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmswap.proxy.status_client import columns, duration, fetch

COLUMNS = ("MODEL", "WAITING", "LONGEST", "READY IN", "WHY", "CALLERS")
CALLERS_SHOWN = 3

# What keeps somebody waiting, for now and looking back.
_NOW = {
    "starting": "it is starting",
    "stopping": "{whom} is giving its memory back",
    "busy": "{whom} is serving",
    "held": "{whom} is kept for its callers{until}",
    "limit": "it serves as many as it may",
    "yielding": "{whom} is overdue and goes first",
    "swap": "the swap to {whom} comes first",
    "later": "another model's turn comes first",
    "backoff": "its last start failed{until}",
    "stuck": "{whom} cannot be stopped",
}
_THEN = {
    "starting": "was starting already",
    "stopping": "waited for the memory of {whom}",
    "busy": "waited for {whom} to finish",
    "held": "waited for {whom}, kept for its callers",
    "limit": "served as many as it may",
    "yielding": "had to yield to {whom}",
    "swap": "came after the swap to {whom}",
    "later": "came later",
    "backoff": "had failed to start",
    "stuck": "waited for {whom}, which cannot be stopped",
}
_STOPPED = {
    "ttl": "idle for its ttl",
    "order": "on order",
    "config": "its config changed",
    "sleepers": "no more may sleep at once",
    "failure": "it could not be put to sleep, or woken",
}
_SLEPT = {"ttl": "idle for its sleepAfter", "order": "on order"}


def fetch_queue(url: str, api_key: str | None) -> dict[str, Any]:
    """Get `/api/queue`.

    Raises:
        StatusError: No answer, or not the expected one.
    """
    return fetch(url, api_key, "/api/queue", "waiting")


def queue_text(queue: dict[str, Any]) -> str:
    """Write down who waits, and the last decisions, newest first."""
    decisions = [f"{duration(one['ago_s']) + ' ago':>12}  {decision_words(one)}" for one in queue["decisions"]]
    waits = waits_table(queue["waiting"]) or "nobody waits"
    return "\n".join((waits, "", "last decisions:" if decisions else "no decisions yet", *decisions))


def waits_table(waits: Sequence[dict[str, Any]]) -> str:
    """Draw the waits as text columns; empty if nobody waits."""
    return columns([COLUMNS, *map(_row, waits)]) if waits else ""


def _row(wait: dict[str, Any]) -> tuple[str, ...]:
    requests, ready_in_s = wait["requests"], wait["ready_in_s"]
    longest = duration(requests[0]["waited_s"]) if requests else "-"
    callers = Counter(one["caller"] or "?" for one in requests).most_common()
    named = [f"{caller} ({count})" if count > 1 else caller for caller, count in callers[:CALLERS_SHOWN]]
    return (
        str(wait["model"]),
        str(wait["waiting"]),
        longest + (", overdue" if wait["due"] else ""),
        "?" if ready_in_s is None else duration(ready_in_s),
        _obstacle(_NOW, wait),
        ", ".join(named + ["…"] * (len(callers) > CALLERS_SHOWN)),
    )


def _obstacle(words: dict[str, str], said: dict[str, Any]) -> str:
    until_s = said["until_s"]
    until = "" if until_s is None else f" for {duration(until_s)} at most"
    return words[said["why"]].format(whom=_listed(said["whom"]) or "its last life", until=until)


def _listed(models: Sequence[str]) -> str:
    return " and ".join(models) if len(models) < 3 else f"{', '.join(models[:-1])} and {models[-1]}"


def decision_words(decision: dict[str, Any]) -> str:
    """Say a decision in a sentence: who, whom, why, and who was not chosen."""
    model, waiting = decision["model"], decision["waiting"]
    waited = f"{waiting} waited {decision['waited_s']:.1f} s"
    match decision["verb"]:
        case "stop":
            return f"{model} was stopped: {_STOPPED.get(decision['rule'], decision['rule'])}"
        case "sleep":
            return f"{model} was put to sleep: {_SLEPT.get(decision['rule'], decision['rule'])}"
        case "hold":
            held = "" if decision["until_s"] is None else f" for {decision['until_s']:.1f} s at most"
            return f"{model} was kept for its callers{held}, although {decision['wanted_by']} wants its place: {waited}"
    evicted = decision["evicted"]
    done = f"evicted {_listed(evicted)}" if evicted else "was started"
    why = f"{waited}, rule {decision['rule']}" if waiting else f"rule {decision['rule']}"
    caller = f", for {decision['caller']}" if decision["caller"] else ""
    others = "".join(f"; {_alternative(one)}" for one in decision["alternatives"])
    return f"{model} {done}: {why}{caller}{others}"


def _alternative(other: dict[str, Any]) -> str:
    return f"{other['model']} {_obstacle(_THEN, other)} ({other['waiting']} waiting {other['waited_s']:.1f} s)"
