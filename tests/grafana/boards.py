"""The boards as they are committed, and as they are generated."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana.generate.__main__ import DASHBOARDS

ROOT = Path(__file__).parents[2]


@functools.cache
def committed() -> dict[str, dict[str, Any]]:
    """Give every board by its file's name."""
    return {path.name: json.loads(path.read_text()) for path in sorted((ROOT / DASHBOARDS).glob("*.json"))}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give every panel, those in collapsed rows and the rows themselves included."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def shown(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Give every panel that shows something."""
    return [panel for panel in panels(board) if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> list[tuple[str, str]]:
    """Give every query in Prometheus' language, of panels and annotations, with the title of where it is."""
    found = [
        (panel["title"], target["expr"])
        for panel in shown(board)
        for target in panel.get("targets", [])
        if "expr" in target
    ]
    return found + [(mark["name"], mark["target"]["expr"]) for mark in board["annotations"]["list"]]
