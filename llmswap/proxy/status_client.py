"""`llmswap status`: asks a running server and draws a table. Blocking; for the command line."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

TIMEOUT_S = 5.0
_GIB = 1 << 30
COLUMNS = ("MODEL", "STATE", "FOR", "IN FLIGHT", "WAITING", "GPU MEMORY", "NOTE")


class StatusError(Exception):
    """The server could not be asked; the message says what to do."""


def fetch_status(url: str, api_key: str | None) -> dict[str, Any]:
    """Get `/api/status`.

    Raises:
        StatusError: No answer, or not the expected one.
    """
    return fetch(url, api_key, "/api/status", "models")


def fetch(url: str, api_key: str | None, path: str, member: str) -> dict[str, Any]:
    """Get a JSON object that has a certain member.

    Raises:
        StatusError: No answer, or not the expected one.
    """
    if not url.startswith(("http://", "https://")):
        raise StatusError(f"{url!r} is no URL: give --url http://HOST:PORT")
    request = urllib.request.Request(url.rstrip("/") + path)  # noqa: S310  scheme checked above
    if api_key:
        request.add_header("Authorization", f"Bearer {api_key}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        hint = ": give --api-key or set LLMSWAP_API_KEY" if error.code == 401 else f" {error.reason}"
        raise StatusError(f"{url} answered {error.code}{hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise StatusError(f"no llmswap answers at {url} ({reason}); is `llmswap serve` running?") from error
    if not isinstance(answer, dict) or member not in answer:
        raise StatusError(f"{url} answered, but it is not llmswap")
    return answer


def status_table(status: dict[str, Any]) -> str:
    """Draw the models of a status answer as text columns."""
    table = columns([COLUMNS] + [_row(model) for model in status["models"]])
    return f"{table}\ndraining: shutting down" if status.get("draining") else table


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Draw rows of equal length as text columns."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(model["model"]),
        str(model["state"]),
        "-" if model["since_s"] is None else duration(model["since_s"]),
        str(model["in_flight"]),
        str(model["waiting"]),
        _gpu_memory(model),
        _note(model),
    )


def _gpu_memory(model: dict[str, Any]) -> str:
    """Write down what it holds in the state that it is in, if that was seen."""
    seen = model.get("memory", {}).get(model["state"], {}).get("gpu_bytes")
    return "-" if seen is None else f"{seen / _GIB:.1f} GiB"


def _note(model: dict[str, Any]) -> str:
    """Say what went wrong, and what comes next by itself."""
    notes = []
    failure, trouble = model.get("failure"), model.get("sleep_failure")
    if failure:
        retry = f" (next try in {model['retry_in_s']:.0f} s)" if model.get("retry_in_s") else ""
        notes.append(f"{failure}{retry}")
    ahead = [("sleeps", model.get("sleep_left_s")), ("unloads", model.get("ttl_left_s"))]
    known = [(left_s, verb) for verb, left_s in ahead if left_s is not None]
    if known:
        left_s, verb = min(known)
        notes.append(f"{verb} in {left_s:.0f} s")
    if trouble and trouble != failure:
        notes.append(f"could not sleep or wake: {trouble}")
    return "; ".join(notes)


def duration(seconds: float) -> str:
    """Write seconds the way people say them: 8s, 3m 20s, 2h 5m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"
