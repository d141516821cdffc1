"""Draws timelines as SVG: what each model was doing, and how long its requests waited, one run above the other.

However long a run, the picture has a bounded number of columns: a column shows how its time was shared out, so that a
day of short swaps is grey with swapping instead of two million rectangles.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, inf, log10
from xml.sax.saxutils import escape

from llmswap.core.fleet import ModelId
from llmswap.sim.whatif.timeline import Doing, Span, Timeline, WaitSeen

WIDTH = 1100
LEFT, RIGHT = 170, 24  # room for the names of models; for the last label of the time axis
LANE, LANE_GAP = 18, 5
WAITS = 110  # height of the chart of waits
HEAD, TITLE, FOOT, GAP = 74, 24, 44, 30
FLAT = 3.0  # a bound this many times the worst wait is left out
CELLS_MAX = 24_000  # columns times lanes: keeps the file under 2 MB
LONG_S, WIDE = 6 * 3600.0, 4  # in a run this long a column is this wide: it shows shares of several swaps, not noise
NAME_MAX = 22

# Colours that the colour-blind can tell apart (Okabe and Ito), and that differ in lightness, too.
COLOURS = {Doing.LOADING: "#d55e00", Doing.SERVING: "#0072b2", Doing.IDLE: "#a6cfea", Doing.STOPPING: "#8c8c8c"}
MODEL_COLOURS = ("#009e73", "#cc3f8f", "#e0a000", "#5b3fa8", "#7a5c1e", "#38b6c9", "#111111", "#8fae1b")
INK, FAINT, BOUND = "#222222", "#dddddd", "#c00000"

UNITS = ((300.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (inf, 3600.0, "h"))


@dataclass(frozen=True, slots=True)
class Panel:
    """One run to draw.

    Attributes:
        title: Its policy.
        note: A line about how it went.
        bound_s: Longest wait that its policy allows before a request is due; None if it has no bound.
    """

    title: str
    note: str
    timeline: Timeline
    bound_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values from 0 to `most` to a stretch of pixels."""

    most: float
    at: float
    pixels: float

    def __call__(self, value: float) -> float:
        return self.at + self.pixels * min(max(value / self.most, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """What all panels of a picture share.

    Attributes:
        models: One lane each.
        worst_s: Where the scale of waits ends.
        columns: Into which the time is divided.
    """

    models: tuple[ModelId, ...]
    time: _Scale
    worst_s: float
    columns: int


def draw(title: str, panels: Sequence[Panel]) -> str:
    """Draw the runs of one workload under each other, over one time axis."""
    duration_s = max(panel.timeline.duration_s for panel in panels) or 1.0
    models = tuple(dict.fromkeys(model for panel in panels for model in panel.timeline.spans))
    worst_s = _scale_end(panels)
    time = _Scale(duration_s, LEFT, WIDTH - LEFT - RIGHT)
    columns = int(time.pixels) // (WIDE if duration_s > LONG_S else 1)
    columns = min(columns, CELLS_MAX // max(1, len(models) * len(panels)))
    sheet = _Sheet(models, time, worst_s, max(1, columns))
    height_each = TITLE + len(models) * (LANE + LANE_GAP) + 8 + WAITS + GAP
    height = HEAD + len(panels) * height_each + FOOT
    parts = [*_head(title, panels, height), *_grid(time, HEAD, height - FOOT)]
    for number, panel in enumerate(panels):
        parts += _panel(panel, sheet, HEAD + number * height_each)
    parts.append("</svg>\n")
    return "\n".join(parts)


def _scale_end(panels: Sequence[Panel]) -> float:
    """Say where the scale of waits ends: it takes in the bounds, unless they would flatten all there is to see."""
    worst_s = max(
        [1.0, *(wait.waited_s for panel in panels for waits in panel.timeline.waits.values() for wait in waits)]
    )
    near_s = [panel.bound_s for panel in panels if panel.bound_s is not None and panel.bound_s <= FLAT * worst_s]
    return 1.05 * max(worst_s, *near_s, 0.0)


def _head(title: str, panels: Sequence[Panel], height: int) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
    )
    yield f"<title>{escape(title)}: {escape(', '.join(panel.title for panel in panels))}</title>"
    yield f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    yield _text(14, 28, title, 'font-size="18" font-weight="bold"')
    x = 14
    for doing in Doing:
        yield f'<rect x="{x}" y="46" width="14" height="12" fill="{COLOURS[doing]}"/>'
        yield _text(x + 20, 56, doing)
        x += 40 + 7 * len(doing)
    yield f'<path d="M{x + 5} 52h0" stroke="{INK}" stroke-width="4" stroke-linecap="round"/>'
    yield _text(x + 16, 56, "a request's wait, at its arrival, in its model's colour")
    x += 330
    yield f'<path d="{_cross(x + 5, 52)}" stroke="{INK}" fill="none"/>'
    yield _text(x + 16, 56, "gave up, refused, or still waiting")
    x += 220
    if any(panel.bound_s is not None for panel in panels):
        yield f'<path d="M{x} 52h24" stroke="{BOUND}" stroke-dasharray="6 4"/>'
        yield _text(x + 30, 56, "maxWait")


def _grid(time: _Scale, top: float, bottom: float) -> Iterator[str]:
    """Draw the time axis, and a line up from each of its ticks."""
    _, unit_s, unit = next(row for row in UNITS if time.most <= row[0])
    for tick in ticks(time.most / unit_s, 12):
        x = time(tick * unit_s)
        yield f'<path d="M{x:.1f} {top:.0f}V{bottom:.0f}" stroke="{FAINT}"/>'
        yield _text(x, bottom + 16, f"{tick:g}", 'text-anchor="middle"')
    yield _text(LEFT + time.pixels / 2, bottom + 34, f"time since the beginning, {unit}", 'text-anchor="middle"')


def _panel(panel: Panel, sheet: _Sheet, top: float) -> Iterator[str]:
    wide = sheet.time.pixels
    yield _text(14, top + 14, panel.title, 'font-size="14" font-weight="bold"')
    yield _text(LEFT + wide, top + 14, panel.note, 'text-anchor="end"')
    y = top + TITLE
    for number, model in enumerate(sheet.models):
        yield f'<path d="M22 {y + LANE / 2:g}h0" stroke="{_colour(number)}" stroke-width="9" stroke-linecap="round"/>'
        yield _text(34, y + 13, model if len(model) <= NAME_MAX else model[: NAME_MAX - 1] + "…")
        yield f'<rect x="{LEFT}" y="{y:g}" width="{wide:g}" height="{LANE}" fill="#f6f6f6"/>'
        yield from _lane(panel.timeline.spans.get(model, ()), y, sheet)
        y += LANE + LANE_GAP
    yield from _waits(panel, y + 8, sheet)


def _colour(number: int) -> str:
    return MODEL_COLOURS[number % len(MODEL_COLOURS)]


def _lane(spans: Iterable[Span], y: float, sheet: _Sheet) -> Iterator[str]:
    """Draw a model's lane: each column split, from the bottom up, by what it spent its time on."""
    width = sheet.time.pixels / sheet.columns
    for doing, row in _levels(spans, sheet.time.most / sheet.columns, sheet.columns).items():
        path = ""
        column = 0
        for (low, high), run in groupby(row):
            many = len(tuple(run))
            if high > low:
                x, wide, tall = LEFT + column * width, many * width, LANE * (high - low)
                path += f"M{x:.1f} {y + LANE * (1 - low):g}h{wide:.1f}v-{tall:g}h-{wide:.1f}z"
            column += many
        if path:
            yield f'<path fill="{COLOURS[doing]}" d="{path}"><title>{doing}</title></path>'


def _levels(spans: Iterable[Span], column_s: float, columns: int) -> dict[Doing, list[tuple[float, float]]]:
    """Give, by column, from where to where each doing reaches if all of them are stacked; 1 is all of the time.

    Rounded to a pixel, so that columns that look alike are alike.
    """
    spent = {doing: [0.0] * columns for doing in Doing}
    for from_s, to_s, doing in spans:
        row = spent[doing]
        for column in range(int(from_s / column_s), min(columns - 1, int(to_s / column_s)) + 1):
            row[column] += min(to_s, (column + 1) * column_s) - max(from_s, column * column_s)
    levels: dict[Doing, list[tuple[float, float]]] = {}
    reached_s = [0.0] * columns
    for doing, row in spent.items():
        lows_s, reached_s = reached_s, [low_s + time_s for low_s, time_s in zip(reached_s, row, strict=True)]
        levels[doing] = [
            (round(LANE * low_s / column_s) / LANE, round(LANE * high_s / column_s) / LANE)
            for low_s, high_s in zip(lows_s, reached_s, strict=True)
        ]
    return levels


def _waits(panel: Panel, top: float, sheet: _Sheet) -> Iterator[str]:
    time, worst_s = sheet.time, sheet.worst_s
    wait = _Scale(worst_s, top + WAITS, -WAITS)
    yield f'<path d="M{LEFT} {top:g}v{WAITS}h{time.pixels:g}" stroke="{INK}" fill="none"/>'
    for tick in ticks(worst_s, 4):
        yield _text(LEFT - 8, wait(tick) + 4, f"{tick:g}", 'text-anchor="end"')
        yield f'<path d="M{LEFT - 4} {wait(tick):.1f}h4" stroke="{INK}"/>'
    yield _text(14, top + WAITS / 2, "wait, s")
    if panel.bound_s is not None and panel.bound_s > worst_s:
        yield _text(LEFT + time.pixels, top + 12, f"maxWait is {panel.bound_s:g} s", 'text-anchor="end"')
    elif panel.bound_s is not None:
        yield (
            f'<path d="M{LEFT} {wait(panel.bound_s):.1f}h{time.pixels:g}" stroke="{BOUND}" stroke-dasharray="6 4">'
            f"<title>maxWait: {panel.bound_s:g} s</title></path>"
        )
    for number, model in enumerate(sheet.models):
        yield from _dots(panel.timeline.waits.get(model, ()), _colour(number), time, wait)


def _dots(waits: Iterable[WaitSeen], colour: str, time: _Scale, wait: _Scale) -> Iterator[str]:
    """Draw the waits for one model; what falls on the same pixel is drawn once."""
    seen = {(round(time(one.arrived_s)), round(wait(one.waited_s)), one.served) for one in waits}
    served = "".join(f"M{x} {y}h0" for x, y, well in sorted(seen) if well)
    others = "".join(_cross(x, y) for x, y, well in sorted(seen) if not well)
    if served:
        yield f'<path d="{served}" stroke="{colour}" stroke-width="4" stroke-linecap="round" stroke-opacity="0.75"/>'
    if others:
        yield f'<path d="{others}" stroke="{colour}" fill="none"/>'


def _cross(x: float, y: float) -> str:
    return f"M{x - 3} {y - 3}l6 6m0-6l-6 6"


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {extra}>{escape(text)}</text>'


def ticks(most: float, wanted: int) -> list[float]:
    """Give round numbers from 0 to `most`, about as many as wanted."""
    step = most / wanted
    power = 10.0 ** floor(log10(step))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
    return [number * step for number in range(ceil(most / step) + 1) if number * step <= most * 1.001]
