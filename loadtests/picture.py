"""Draws runs as SVG: what each model was doing, and below it how long each request waited. One run above the other.

However long a run, a picture has a bounded number of columns; a column shows what took up most of its time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import ceil, floor, inf, log10
from typing import Any
from xml.sax.saxutils import escape

from loadtests.samples import Ending, Sample

WIDTH, LEFT, RIGHT = 1100, 170, 24
LANE, LANE_GAP, WAITS = 18, 5, 110
HEAD, TITLE, FOOT, GAP = 74, 24, 44, 30
NAME_MAX = 22
INK, FAINT = "#222222", "#dddddd"

# Colours that the colour-blind can tell apart (Okabe and Ito), and that differ in lightness, too.
COLOURS = {
    "coming up": "#d55e00",
    "serving": "#0072b2",
    "idle": "#a6cfea",
    "going": "#8c8c8c",
    "asleep": "#e6ddf2",
}
DOING = {
    "starting": "coming up",
    "waking": "coming up",
    "ready": "idle",
    "stopping": "going",
    "sleepPending": "going",
    "asleep": "asleep",
}
MODEL_COLOURS = ("#009e73", "#cc3f8f", "#e0a000", "#5b3fa8", "#7a5c1e", "#38b6c9", "#111111", "#8fae1b")
UNITS = ((300.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (inf, 3600.0, "h"))


@dataclass(frozen=True, slots=True)
class Dot:
    """One request: when it came, how long it waited, whether it was served."""

    at_s: float
    wait_s: float
    served: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One run to draw, in seconds of the scenario.

    Attributes:
        lanes: Model -> spans of what it did; none if nobody could see it.
        dots: Model -> its requests.
        what: What is on the axis of the dots.
    """

    title: str
    note: str
    duration_s: float
    lanes: dict[str, list[tuple[float, float, str]]]
    dots: dict[str, list[Dot]]
    what: str


def panel(card: dict[str, Any], samples: Sequence[Sample], began_s: float, title: str, note: str) -> Panel:
    """Make the panel of a report."""
    real_s, duration_s = card["run"]["time_scale"], 60 * card["run"]["minutes"]
    dots: dict[str, list[Dot]] = {model: [] for model in card["models"]}
    visible = card["wait"] is not None
    for sample in samples:
        waited_s = sample.waited_s if visible else sample.ttft_s or sample.e2e_s
        served = sample.ending in (Ending.DONE, Ending.LEFT)
        dots[sample.model].append(Dot((sample.at_s - began_s) / real_s, (waited_s or 0.0) / real_s, served))
    lanes = {}
    for model, changes in card["residency"]["lanes"].items():
        served_s = [_service(sample, began_s, real_s) for sample in samples if _server(sample) == model]
        lanes[model] = list(_spans(changes, [span for span in served_s if span], duration_s))
    order = list(dict.fromkeys((*sorted(lanes), *dots)))
    lanes = {model: lanes.get(model, []) for model in order} if lanes else {}
    return Panel(title, note, duration_s, lanes, dots, "wait, s" if visible else "first token, s")


def draw(title: str, panels: Sequence[Panel]) -> str:
    """Draw the runs of one scenario under each other, over one time axis."""
    duration_s = max(panel.duration_s for panel in panels) or 1.0
    models = tuple(dict.fromkeys(model for panel in panels for model in (*panel.lanes, *panel.dots)))
    waits = [dot.wait_s for panel in panels for dots in panel.dots.values() for dot in dots]
    worst_s = 1.05 * max([1.0, *waits])
    heights = [TITLE + len(panel.lanes) * (LANE + LANE_GAP) + 8 + WAITS + GAP for panel in panels]
    height = HEAD + sum(heights) + FOOT
    time = _Scale(duration_s, LEFT, WIDTH - LEFT - RIGHT)
    parts = [*_head(title, panels, height), *_grid(time, HEAD, height - FOOT)]
    top = float(HEAD)
    for panel, tall in zip(panels, heights, strict=True):
        parts += _panel(panel, models, time, worst_s, top)
        top += tall
    return "\n".join([*parts, "</svg>\n"])


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values from 0 to `most` to a stretch of pixels."""

    most: float
    at: float
    pixels: float

    def __call__(self, value: float) -> float:
        return self.at + self.pixels * min(max(value / self.most, 0.0), 1.0)


def _server(sample: Sample) -> str:
    return sample.served_by or sample.model


def _service(sample: Sample, began_s: float, real_s: float) -> tuple[float, float] | None:
    """Say from when to when a request was served; None if it never was."""
    if not sample.dispatched:
        return None
    waited_s = sample.wait_s if sample.wait_s is not None else sample.ttft_s or 0.0
    at_s = sample.at_s - began_s
    return (at_s + waited_s) / real_s, (at_s + sample.e2e_s) / real_s


def _spans(
    changes: list[list[Any]],
    served: list[tuple[float, float]],
    duration_s: float,
) -> Iterator[tuple[float, float, str]]:
    """Give what a model did: its states, and over them the times at which it served."""
    for (from_s, state), (to_s, _) in pairwise([*changes, [duration_s, ""]]):
        if state in DOING and to_s > from_s:
            yield from_s, to_s, DOING[state]
    yield from ((from_s, min(to_s, duration_s), "serving") for from_s, to_s in served)


def _head(title: str, panels: Sequence[Panel], height: float) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
    )
    yield f"<title>{escape(title)}: {escape(', '.join(panel.title for panel in panels))}</title>"
    yield f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>'
    yield _text(14, 28, title, 'font-size="18" font-weight="bold"')
    x = 14.0
    for doing, colour in COLOURS.items():
        yield f'<rect x="{x:g}" y="46" width="14" height="12" fill="{colour}"/>'
        yield _text(x + 20, 56, doing)
        x += 40 + 7 * len(doing)
    yield f'<path d="M{x + 5:g} 52h0" stroke="{INK}" stroke-width="4" stroke-linecap="round"/>'
    yield _text(x + 16, 56, "a request's wait, at its arrival, in its model's colour")
    x += 330
    yield f'<path d="{_cross(x + 5, 52)}" stroke="{INK}" fill="none"/>'
    yield _text(x + 16, 56, "gave up, refused, or still open")


def _grid(time: _Scale, top: float, bottom: float) -> Iterator[str]:
    _, unit_s, unit = next(row for row in UNITS if time.most <= row[0])
    for tick in _ticks(time.most / unit_s, 12):
        x = time(tick * unit_s)
        yield f'<path d="M{x:.1f} {top:g}V{bottom:g}" stroke="{FAINT}"/>'
        yield _text(x, bottom + 16, f"{tick:g}", 'text-anchor="middle"')
    where = f"time of the scenario since the beginning, {unit}"
    yield _text(LEFT + time.pixels / 2, bottom + 34, where, 'text-anchor="middle"')


def _panel(panel: Panel, models: Sequence[str], time: _Scale, worst_s: float, top: float) -> Iterator[str]:
    yield _text(14, top + 14, panel.title, 'font-size="14" font-weight="bold"')
    yield _text(LEFT + time.pixels, top + 14, panel.note, 'text-anchor="end"')
    y = top + TITLE
    for model, spans in panel.lanes.items():
        colour = MODEL_COLOURS[models.index(model) % len(MODEL_COLOURS)]
        yield f'<path d="M22 {y + LANE / 2:g}h0" stroke="{colour}" stroke-width="9" stroke-linecap="round"/>'
        yield _text(34, y + 13, model if len(model) <= NAME_MAX else model[: NAME_MAX - 1] + "…")
        yield f'<rect x="{LEFT}" y="{y:g}" width="{time.pixels:g}" height="{LANE}" fill="#f6f6f6"/>'
        yield from _lane(spans, y, time)
        y += LANE + LANE_GAP
    wait = _Scale(worst_s, y + 8 + WAITS, -WAITS)
    yield f'<path d="M{LEFT} {y + 8:g}v{WAITS}h{time.pixels:g}" stroke="{INK}" fill="none"/>'
    for tick in _ticks(worst_s, 4):
        yield _text(LEFT - 8, wait(tick) + 4, f"{tick:g}", 'text-anchor="end"')
    yield _text(14, y + 8 + WAITS / 2, panel.what)
    for model, dots in panel.dots.items():
        yield from _dots(dots, MODEL_COLOURS[models.index(model) % len(MODEL_COLOURS)], time, wait)


def _lane(spans: Sequence[tuple[float, float, str]], y: float, time: _Scale) -> Iterator[str]:
    """Draw one lane: every column in the colour of what took up most of it, serving before idling."""
    columns = int(time.pixels)
    column_s = time.most / columns
    spent: list[dict[str, float]] = [{} for _ in range(columns)]
    for from_s, to_s, doing in spans:
        for column in range(int(from_s / column_s), min(columns - 1, int(to_s / column_s)) + 1):
            inside_s = min(to_s, (column + 1) * column_s) - max(from_s, column * column_s)
            spent[column][doing] = spent[column].get(doing, 0.0) + inside_s
    for took in spent:
        if "serving" in took and "idle" in took:
            took["idle"] = max(0.0, took["idle"] - took["serving"])
    row = [max(took, key=lambda doing: took[doing]) if took else "" for took in spent]
    paths: dict[str, str] = {}
    column = 0
    for doing, run in groupby(row):
        many = len(tuple(run))
        if doing:
            x = time.at + column
            paths[doing] = paths.get(doing, "") + f"M{x:g} {y:g}h{many}v{LANE}h-{many}z"
        column += many
    for doing, path in paths.items():
        yield f'<path fill="{COLOURS[doing]}" d="{path}"><title>{doing}</title></path>'


def _dots(dots: Sequence[Dot], colour: str, time: _Scale, wait: _Scale) -> Iterator[str]:
    """Draw the requests for one model; what falls on the same pixel is drawn once."""
    seen = sorted({(round(time(dot.at_s)), round(wait(dot.wait_s)), dot.served) for dot in dots})
    served = "".join(f"M{x} {y}h0" for x, y, well in seen if well)
    others = "".join(_cross(x, y) for x, y, well in seen if not well)
    if served:
        yield f'<path d="{served}" stroke="{colour}" stroke-width="4" stroke-linecap="round" stroke-opacity="0.75"/>'
    if others:
        yield f'<path d="{others}" stroke="{colour}" fill="none"/>'


def _cross(x: float, y: float) -> str:
    return f"M{x - 3:g} {y - 3:g}l6 6m0-6l-6 6"


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {extra}>{escape(text)}</text>'


def _ticks(most: float, wanted: int) -> list[float]:
    """Give round numbers from 0 to `most`, about as many as wanted."""
    step = most / wanted
    power = 10.0 ** floor(log10(step))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
    return [number * step for number in range(ceil(most / step) + 1) if number * step <= most * 1.001]
