"""The frame that all boards share: variables, annotations, links, and the grid.

Panels are placed line by line, left to right; the widths of a line's panels add up to those of the grid.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as prometheus_build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as d

from grafana.generate.palette import BAD, BUSY, CALM, RULE
from grafana.generate.panels import METRICS, AnyPanel
from grafana.generate.promql import pick
from llmswap.telemetry import names

COLUMNS = 24
TAG = "llmswap"
ALL = ".+"


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side, each with its width."""

    height: int
    panels: Sequence[tuple[int, AnyPanel]]


@dataclass(frozen=True, slots=True)
class Row:
    """Lines below a heading; without a title there is none."""

    title: str
    lines: Sequence[Line]
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        about: The question that it answers.
        model: How models are chosen: `all` of them at first, `one` at first, or not at all.
        since: How far back it looks when it is opened.
        swaps: Mark swaps from the beginning.
    """

    uid: str
    title: str
    about: str
    rows: Sequence[Row]
    model: str = ""
    since: str = "now-1h"
    refresh: str = "10s"
    swaps: bool = False


def dashboard(board: Board) -> dict[str, Any]:
    """Put a board together, as Grafana reads it."""
    return _clean(json.loads(json.dumps(_built(board), cls=JSONEncoder)))


def _clean(found: dict[str, Any]) -> dict[str, Any]:
    """Take out what the SDK adds unasked."""
    for control in (*found["links"], *found["annotations"]["list"]):
        del control["placement"]  # would hide them in a menu
    for variable in found["templating"]["list"]:
        for key in ("auto", "auto_min", "auto_count", "definition"):  # of other kinds of variables, or of the editor
            variable.pop(key, None)
    for panel in found["panels"]:
        if panel["type"] == "table":
            panel["options"].pop("footer", None)  # Grafana 13 has it elsewhere
    return found


def _built(board: Board) -> d.Dashboard:
    made = build.Dashboard(f"LLMSwap / {board.title}").uid(board.uid).description(board.about)
    made.tags([TAG]).readonly().tooltip(d.DashboardCursorSync.CROSSHAIR).time(board.since, "now")
    made.refresh(board.refresh).timezone("browser")
    made.timepicker(build.TimePicker().refresh_intervals(["5s", "10s", "30s", "1m", "5m"]))
    made.link(_boards())
    for variable in _variables(board.model):
        made.with_variable(variable)
    for annotation in _annotations(swaps=board.swaps):
        made.annotation(annotation)
    _place(made, board)
    return made.build()


def _boards() -> build.DashboardLink:
    link = build.DashboardLink("LLMSwap boards").type(d.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(as_dropdown=True).include_vars(include_vars=True).keep_time(keep_time=True)


def _place(made: build.Dashboard, board: Board) -> None:
    numbers, y = itertools.count(1), 0
    for row in board.rows:
        heading: Any = None
        if row.title:
            place = d.GridPos(1, COLUMNS, 0, y)
            heading = build.Row(row.title).id(next(numbers)).collapsed(row.collapsed).grid_pos(place)
            y += 1
        panels = []
        for line in row.lines:
            panels += _placed(line, y, numbers)
            y += line.height
        inside, below = (panels, []) if row.collapsed else ([], panels)
        for panel in inside:
            heading.with_panel(panel)
        if heading is not None:
            made.with_row(heading)
        for panel in below:
            made.with_panel(panel)


def _placed(line: Line, y: int, numbers: Iterator[int]) -> list[AnyPanel]:
    x = 0
    for width, panel in line.panels:
        panel.id(next(numbers)).grid_pos(d.GridPos(line.height, width, x, y))
        x += width
    if x != COLUMNS:
        raise ValueError(f"a line of panels is {x} wide, not {COLUMNS}")
    return [panel for _, panel in line.panels]


def _variables(model: str) -> list[Any]:
    found: list[Any] = [
        build.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(d.VariableOption(selected=True, text="Prometheus", value="prometheus")),
        _values("job", "Job", f"label_values({names.BUILD_INFO.name}, job)"),
        _values("instance", "Instance", f'label_values({names.BUILD_INFO.name}{{job=~"$job"}}, instance)'),
    ]
    if model:
        found.append(_values("model", "Model", f"label_values({pick(names.MODEL_INFO)}, model)", every=model == "all"))
    return found


def _values(name: str, label: str, query: str, *, every: bool = True) -> build.QueryVariable:
    made = build.QueryVariable(name).label(label).datasource(METRICS).definition(query)
    made.query({"qryType": 1, "query": query, "refId": f"Prometheus-{name}"})
    made.refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(d.VariableSort.ALPHABETICAL_ASC)
    made.multi(multi=True).include_all(include_all=every)
    if every:
        made.all_value(ALL).current(d.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return made


def _annotations(*, swaps: bool) -> list[build.AnnotationQuery]:
    return [
        _mark(
            "Swaps",
            f"{pick(names.SWAP_LAST_START)} * 1000 > 0",
            "swap to {{to_model}}",
            BUSY,
            shown=swaps,
            at_value=True,
        ),
        _mark(
            "Config reloads",
            f"{pick(names.CONFIG_RELOAD_TIME)} * 1000",
            "config loaded",
            CALM,
            shown=True,
            at_value=True,
        ),
        _mark(
            "Restarts",
            'process_start_time_seconds{job=~"$job", instance=~"$instance"} * 1000',
            "llmswap started",
            RULE,
            shown=True,
            at_value=True,
        ),
        _mark(
            "Alerts",
            'ALERTS{alertname=~"LLMSwap.*", alertstate="firing"}',
            "{{alertname}} {{model}}{{to_model}}",
            BAD,
            shown=True,
        ),
    ]


def _mark(
    name: str, query: str, title: str, colour: str, *, shown: bool, at_value: bool = False
) -> build.AnnotationQuery:
    """Mark moments; with `at_value` the query's value is the moment, in milliseconds."""
    made = build.AnnotationQuery().name(name).datasource(METRICS).enable(shown).hide(hide=False).icon_color(colour)
    made.title_format(title).use_value_for_time(at_value)
    return made.target(prometheus_build.Dataquery().ref_id("Anno").expr(query).range())
