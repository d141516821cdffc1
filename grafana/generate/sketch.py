"""Draws a board's layout as SVG: which panel is where, of what kind, how large. A sketch: the curves are not data."""

import html
from collections.abc import Callable, Mapping
from typing import Any

from grafana.generate.frame import COLUMNS

Area = tuple[float, float, float, float]  # left, top, width, height

CELL_W, CELL_H, GAP = 40, 22, 4
HEAD = 46
_PAPER, _BOX, _EDGE, _INK, _FAINT = "#111217", "#181b1f", "#2c3235", "#ccccdc", "#8e8e99"
_GREEN, _ORANGE, _BLUE, _GREY = "#73bf69", "#ff9830", "#5794f2", "#6e7681"


def sketch(board: Mapping[str, Any]) -> str:
    """Draw a board."""
    shapes, depth = [], 0
    for panel in board["panels"]:
        place = panel["gridPos"]
        depth = max(depth, place["y"] + place["h"])
        shapes += _row(panel) if panel["type"] == "row" else _panel(panel)
    width, height = COLUMNS * CELL_W + 2 * GAP, HEAD + depth * CELL_H + GAP
    title = html.escape(board["title"])
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
            f"<title>{title}: sketch of the layout</title>",
            f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
            _text((GAP + 6, 28), board["title"], 17, _INK),
            _text((width - GAP - 6, 28), "sketch of the layout, not a screenshot", 12, _FAINT, "end"),
            *shapes,
            "</svg>\n",
        ]
    )


def _text(at: tuple[float, float], words: str, size: int, colour: str, anchor: str = "start") -> str:
    escaped = html.escape(words)
    return (
        f'<text x="{at[0]:g}" y="{at[1]:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{escaped}</text>'
    )


def _row(panel: Mapping[str, Any]) -> list[str]:
    y = HEAD + panel["gridPos"]["y"] * CELL_H
    mark = "▸" if panel.get("collapsed") else "▾"
    return [_text((GAP + 6, y + 16), f"{mark} {panel['title']}", 13, _INK)]


def _panel(panel: Mapping[str, Any]) -> list[str]:
    place = panel["gridPos"]
    x, y = GAP + place["x"] * CELL_W, HEAD + place["y"] * CELL_H
    w, h = place["w"] * CELL_W - GAP, place["h"] * CELL_H - GAP
    box = f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="2" fill="{_BOX}" stroke="{_EDGE}"/>'
    most = max(8, int(w / 6.2) - 2)
    words = panel["title"] if len(panel["title"]) <= most else panel["title"][: most - 1] + "…"
    inside = _INSIDE[panel["type"]]((x + 8, y + 24, w - 16, h - 32))
    return [box, _text((x + 6, y + 15), words, 11, _INK), *inside]


def _bar(area: Area, colour: str, opacity: float = 0.75) -> str:
    x, y, w, h = (f"{figure:.4g}" for figure in area)
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{colour}" fill-opacity="{opacity:.2g}"/>'


def _figure(area: Area) -> list[str]:
    x, y, w, h = area
    return [_bar((x + w / 2 - 20, y + h / 2 - 9, 40, 18), _GREEN)]


def _curve(area: Area) -> list[str]:
    x, y, w, h = area
    heights = (0.5, 0.35, 0.6, 0.45, 0.3, 0.55, 0.4)
    points = " ".join(
        f"{x + w * index / (len(heights) - 1):.4g},{y + h * level:.4g}" for index, level in enumerate(heights)
    )
    return [
        f'<polygon points="{x},{y + h} {points} {x + w},{y + h}" fill="{_BLUE}" fill-opacity="0.2"/>',
        f'<polyline points="{points}" fill="none" stroke="{_BLUE}" stroke-width="1.5"/>',
    ]


def _heat(area: Area) -> list[str]:
    x, y, w, h = area
    across, down = 12, 5
    return [
        _bar(
            (x + w * i / across, y + h * j / down, w / across - 2, h / down - 2), _BLUE, 0.1 + 0.15 * ((i * j + i) % 5)
        )
        for i in range(across)
        for j in range(down)
        if (i + j) % 3
    ]


def _lanes(area: Area) -> list[str]:
    x, y, w, h = area
    parts = ((0, 0.3, _GREEN), (0.3, 0.36, _ORANGE), (0.36, 0.7, _GREEN), (0.7, 1, _GREY))
    count = max(2, int(h / 22))
    return [
        _bar((x + w * ((start + lane * 0.23) % 1), y + h * lane / count, w * (end - start), h / count - 4), colour)
        for lane in range(count)
        for start, end, colour in parts
        if (start + lane * 0.23) % 1 + end - start <= 1
    ]


def _grid(area: Area) -> list[str]:
    x, y, w, h = area
    count = max(2, int(h / 16))
    return [
        _bar((x + w * column / 4, y + h * line / count, w / 4 - 4, 7), _INK if line == 0 else _GREY, 0.5)
        for line in range(count)
        for column in range(4)
    ]


def _bars(area: Area) -> list[str]:
    x, y, w, h = area
    count = max(2, min(4, int(h / 18)))
    return [_bar((x, y + h * i / count, w * (0.9 - 0.2 * i), min(10.0, h / count - 4)), _ORANGE) for i in range(count)]


def _lines(area: Area) -> list[str]:
    x, y, w, h = area
    return [_bar((x, y + h * i / 6, w * (0.9 if i % 3 else 0.6), 5), _FAINT, 0.4) for i in range(6)]


_INSIDE: Mapping[str, Callable[[Area], list[str]]] = {
    "stat": _figure,
    "timeseries": _curve,
    "heatmap": _heat,
    "state-timeline": _lanes,
    "table": _grid,
    "bargauge": _bars,
    "text": _lines,
}
