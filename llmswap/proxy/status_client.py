"""`llmswap status`: asks a running server and draws a table. Blocking; for the command line."""

import json
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_S = 5.0
COLUMNS = ("MODEL", "STATE", "FOR", "IN FLIGHT", "WAITING", "NOTE")


class StatusError(Exception):
    """The server could not be asked; the message says what to do."""


def fetch_status(url: str, api_key: str | None) -> dict[str, Any]:
    """Get `/api/status`.

    Raises:
        StatusError: No answer, or not the expected one.
    """
    if not url.startswith(("http://", "https://")):
        raise StatusError(f"{url!r} is no URL: give --url http://HOST:PORT")
    request = urllib.request.Request(url.rstrip("/") + "/api/status")  # noqa: S310  scheme checked above
    if api_key:
        request.add_header("Authorization", f"Bearer {api_key}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            status = json.load(response)
    except urllib.error.HTTPError as error:
        hint = ": give --api-key or set LLMSWAP_API_KEY" if error.code == 401 else f" {error.reason}"
        raise StatusError(f"{url} answered {error.code}{hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise StatusError(f"no llmswap answers at {url} ({reason}); is `llmswap serve` running?") from error
    if not isinstance(status, dict) or "models" not in status:
        raise StatusError(f"{url} answered, but it is not llmswap")
    return status


def status_table(status: dict[str, Any]) -> str:
    """Draw the models of a status answer as text columns."""
    rows = [COLUMNS] + [_row(model) for model in status["models"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if status.get("draining"):
        lines.append("draining: shutting down")
    return "\n".join(lines)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    note = model.get("failure") or ""
    if model.get("retry_in_s"):
        note += f" (next try in {model['retry_in_s']:.0f} s)"
    elif model.get("ttl_left_s") is not None:
        note = f"unloads in {model['ttl_left_s']:.0f} s"
    return (
        str(model["model"]),
        str(model["state"]),
        "-" if model["since_s"] is None else duration(model["since_s"]),
        str(model["in_flight"]),
        str(model["waiting"]),
        note,
    )


def duration(seconds: float) -> str:
    """Write seconds the way people say them: 8s, 3m 20s, 2h 5m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"
