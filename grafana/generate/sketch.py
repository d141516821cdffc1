"""Draws a board's layout as SVG: which panel is where, of what kind, in which colours. The curves are not data."""

import html
from collections.abc import Callable, Mapping
from typing import Any

from grafana.generate.frame import COLUMNS

Area = tuple[float, float, float, float]  # left, top, width, height
Panel = Mapping[str, Any]

CELL_W, CELL_H, GAP = 40, 22, 4
HEAD = 46
_PAPER, _BOX, _EDGE, _INK, _FAINT = "#111217", "#181b1f", "#2c3235", "#ccccdc", "#8e8e99"
_GREY = "#6e7681"
_COLOURS = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "text": _INK,
}
_SHADES = {"super-light": 1.5, "light": 1.25, "semi-dark": 0.85, "dark": 0.7}
_UNITS = {"percentunit": "%", "s": "s", "bytes": "GiB", "reqps": "/s", "watt": "W", "celsius": "°C"}
_WAVE = (0.5, 0.75, 0.4, 0.6, 0.9, 0.35, 0.7, 0.55, 0.8, 0.45, 0.65)


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


def _row(panel: Panel) -> list[str]:
    y = HEAD + panel["gridPos"]["y"] * CELL_H
    mark = "▸" if panel.get("collapsed") else "▾"
    return [_text((GAP + 6, y + 16), f"{mark} {panel['title']}", 13, _INK)]


def _panel(panel: Panel) -> list[str]:
    place = panel["gridPos"]
    x, y = GAP + place["x"] * CELL_W, HEAD + place["y"] * CELL_H
    w, h = place["w"] * CELL_W - GAP, place["h"] * CELL_H - GAP
    box = f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="2" fill="{_BOX}" stroke="{_EDGE}"/>'
    most = max(8, int(w / 6.2) - 2)
    words = panel["title"] if len(panel["title"]) <= most else panel["title"][: most - 1] + "…"
    inside = _INSIDE[panel["type"]]((x + 8, y + 24, w - 16, h - 32), panel)
    return [box, _text((x + 6, y + 15), words, 11, _INK), *inside]


def _bar(area: Area, colour: str, opacity: float = 0.75) -> str:
    x, y, w, h = (f"{figure:.4g}" for figure in area)
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{colour}" fill-opacity="{opacity:.2g}"/>'


def _figure(area: Area, panel: Panel) -> list[str]:
    x, y, w, h = area
    unit = _UNITS.get(panel["fieldConfig"]["defaults"]["unit"], "n")
    if panel["options"]["textMode"] == "name":
        unit = "name"
    return [_text((x + w / 2, y + h / 2 + 8), unit, 22, _tone(panel), "middle")]


def _tone(panel: Panel) -> str:
    """Green where a figure is judged, else the colour of text."""
    judged = len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1
    return _COLOURS["green"] if judged else _INK


def _series(panel: Panel) -> list[tuple[str, str]]:
    """Give the names and colours of the series that have one."""
    found = []
    for override in panel["fieldConfig"]["overrides"]:
        changed = {change["id"]: change["value"] for change in override["properties"]}
        line = "custom.lineStyle" in changed  # a limit over a stack
        if "color" in changed and override["matcher"]["id"] == "byName" and not line:
            name = changed.get("displayName", override["matcher"]["options"])
            found.append((name, _colour(changed["color"]["fixedColor"])))
    return found


def _colour(name: str) -> str:
    if name.startswith("#"):
        return name
    shade, _, hue = name.rpartition("-")
    return _shaded(_COLOURS.get(hue, _GREY), _SHADES.get(shade, 1.0))


def _shaded(colour: str, by: float) -> str:
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{min(255, round(part * by)):02x}" for part in parts)


def _curves(area: Area, panel: Panel) -> list[str]:
    x, y, w, h = area
    named = _series(panel)[:6]
    custom = panel["fieldConfig"]["defaults"]["custom"]
    colours = [colour for _, colour in named] or [_colour("blue"), _colour("orange"), _colour("purple")]
    legend = _legend((x, y + h - 2), w, named)
    plot = (x, y, w, h - (14 if legend else 0))
    if custom["drawStyle"] == "bars":
        return [*_columns(plot, colours), *legend]
    stacked = custom["stacking"]["mode"] != "none"
    return [*(_bands(plot, colours) if stacked else _strokes(plot, colours)), *legend]


def _legend(at: tuple[float, float], room: float, named: list[tuple[str, str]]) -> list[str]:
    x, shapes = at[0], []
    for name, colour in named:
        wide = len(name) * 5.2 + 16
        if x + wide > at[0] + room:
            break
        shapes += [_bar((x, at[1] - 4, 8, 3), colour, 1), _text((x + 11, at[1]), name, 9, _FAINT)]
        x += wide
    return shapes


def _wave(index: int, at: int) -> float:
    return _WAVE[(at + 3 * index) % len(_WAVE)]


def _columns(area: Area, colours: list[str]) -> list[str]:
    x, y, w, h = area
    shapes, count = [], 16
    for at in range(count):
        top = y + h
        for index, colour in enumerate(colours[:4]):
            high = h * 0.8 * _wave(index, at) / len(colours[:4])
            top -= high
            shapes.append(_bar((x + w * at / count, top, w / count - 3, high), colour))
    return shapes


def _bands(area: Area, colours: list[str]) -> list[str]:
    x, y, w, h = area
    steps = range(len(_WAVE))
    base, shapes = [0.0 for _ in steps], []
    for index, colour in enumerate(colours):
        over = [low + 0.85 * _wave(index, at) / len(colours) for at, low in zip(steps, base, strict=True)]
        edges = [*zip(steps, over, strict=True), *reversed(list(zip(steps, base, strict=True)))]
        points = " ".join(f"{x + w * at / (len(_WAVE) - 1):.4g},{y + h * (1 - level):.4g}" for at, level in edges)
        shapes.append(f'<polygon points="{points}" fill="{colour}" fill-opacity="0.55"/>')
        base = over
    return shapes


def _strokes(area: Area, colours: list[str]) -> list[str]:
    x, y, w, h = area
    shapes = []
    for index, colour in enumerate(colours):
        levels = [(index + 0.3 + 0.6 * _wave(index, at)) / (len(colours) + 0.5) for at in range(len(_WAVE))]
        points = " ".join(
            f"{x + w * at / (len(_WAVE) - 1):.4g},{y + h * (1 - level):.4g}" for at, level in enumerate(levels)
        )
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    return shapes


def _heat(area: Area, panel: Panel) -> list[str]:
    del panel
    x, y, w, h = area
    across, down, blue = 24, 7, _colour("blue")
    return [
        _bar((x + w * i / across, y + h * j / down, w / across - 2, h / down - 2), blue, 0.1 + 0.2 * ((i * j + i) % 5))
        for i in range(across)
        for j in range(down)
        if (i * i + 2 * j) % 3 and (j > 1 or i % 4 == 0)
    ]


def _lanes(area: Area, panel: Panel) -> list[str]:
    x, y, w, h = area
    mapped = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    colours = [_colour(shown["color"]) for shown in mapped.values() if shown["color"] != "transparent"]
    counting = len(panel["targets"]) - 1
    count = max(3 + counting, int(h / 26))
    shapes = []
    for lane in range(count):
        place = (x, y + h * lane / count, w, h / count - 4)
        shapes += _counts(place, count - 1 - lane) if lane >= count - counting else _states(place, lane, colours)
    return shapes


def _states(area: Area, lane: int, colours: list[str]) -> list[str]:
    x, y, w, h = area
    shapes, at, turn = [], 0.0, lane
    pattern = (0, 1, 2, 3) if len(colours) > 3 else (0,)
    while at < 1:
        part = min(1 - at, (0.31, 0.04, 0.22, 0.02)[turn % 4])
        shapes.append(_bar((x + w * at, y, w * part, h), colours[pattern[turn % len(pattern)]]))
        at, turn = at + part, turn + 1
    return shapes


def _counts(area: Area, from_below: int) -> list[str]:
    x, y, w, h = area
    colour = _colour("blue" if from_below else "yellow")
    return [
        _bar((x + w * at / 20, y, w / 20, h), colour, 0.3 + 0.5 * _wave(from_below, at)) for at in range(20) if at % 5
    ]


def _table(area: Area, panel: Panel) -> list[str]:
    x, y, w, h = area
    steps = {step["id"]: step["options"] for step in panel.get("transformations", [])}
    if "groupingToMatrix" in steps:
        return _matrix(area)
    titles = list(steps["organize"]["renameByName"].values()) if steps else ["Trace", "From", "To", "Kind", "Duration"]
    wide = w / len(titles)
    most = max(3, int(wide / 5.6))
    shapes = [
        _text((x + wide * column, y + 9), title[:most], 10, _colour("light-blue"))
        for column, title in enumerate(titles)
    ]
    for line in range(1, max(2, int(h / 18))):
        shapes += [
            _bar((x + wide * column, y + 18 * line, wide * (0.35 + 0.3 * _wave(column, line)), 6), _GREY, 0.5)
            for column in range(len(titles))
        ]
    return shapes


def _matrix(area: Area) -> list[str]:
    x, y, w, h = area
    size, shapes = 5, []
    for row in range(size):
        shapes.append(_bar((x, y + h * row / size + 4, w / 6, 6), _GREY, 0.5))
        for column in range(size):
            if row != column and (row + 2 * column) % 3:
                cell = (x + w / 5 + w * 0.8 * column / size, y + h * row / size, w * 0.8 / size - 3, h / size - 3)
                shapes.append(_bar(cell, _colour("orange"), 0.15 + 0.8 * _wave(row, column)))
    return shapes


def _bars(area: Area, panel: Panel) -> list[str]:
    x, y, w, h = area
    named = _series(panel)[:6] or [("", _colour(name)) for name in ("orange", "blue", "purple")]
    step, label = min(26.0, h / len(named)), min(w / 2, 6.0 * max(len(name) for name, _ in named) + 4)
    shapes = []
    for index, (name, colour) in enumerate(named):
        top = y + step * index
        shapes.append(_text((x, top + step / 2 + 3), name, 9, _FAINT))
        shapes.append(_bar((x + label, top, (w - label) * (0.95 - 0.14 * index), step - 5), colour))
    return shapes


def _lines(area: Area, panel: Panel) -> list[str]:
    del panel
    x, y, w, h = area
    return [_bar((x, y + h * i / 6, w * (0.9 if i % 3 else 0.6), 5), _FAINT, 0.4) for i in range(6)]


_INSIDE: Mapping[str, Callable[[Area, Panel], list[str]]] = {
    "stat": _figure,
    "timeseries": _curves,
    "heatmap": _heat,
    "state-timeline": _lanes,
    "table": _table,
    "bargauge": _bars,
    "text": _lines,
}
