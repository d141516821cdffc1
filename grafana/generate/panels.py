"""The panels of the house: tiles, curves, heat maps, lanes and bars. Tables are in `tables.py`.

A panel needs a title, what it is about (which metric, what to do about it) and what it says when it is empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import heatmap as heatmap_build
from grafana_foundation_sdk.builders import prometheus as prometheus_build
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import heatmap as h
from grafana_foundation_sdk.models import prometheus as p

from grafana.generate.palette import CLEAR, GOOD, NEUTRAL, STATES

METRICS = c.DataSourceRef(type_val="prometheus", uid="${datasource}")
TRACES = c.DataSourceRef(type_val="tempo", uid="tempo")

AnyPanel = Any  # any builder of a panel: those of the SDK have nothing else in common


@dataclass(frozen=True, slots=True)
class Words:
    """What a panel says beside its data.

    Attributes:
        about: Which metric this is, and what to do about it. Markdown.
        empty: Shown when there is nothing: why that is.
    """

    title: str
    about: str
    empty: str


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        legend: Grafana's template for the name of a series.
        exemplar: Ask for traces of single requests, too.
        now: Ask for one moment, the end of the board's time range, instead of for all of it.
    """

    text: str
    legend: str = ""
    exemplar: bool = False
    now: bool = False
    form: p.PromQueryFormat = p.PromQueryFormat.TIME_SERIES


def letter(index: int) -> str:
    """Name a panel's query: A, B, C ..."""
    return chr(ord("A") + index)


def targets(panel: AnyPanel, queries: Sequence[Query]) -> None:
    """Give a panel its queries."""
    panel.datasource(METRICS)
    for index, query in enumerate(queries):
        target = prometheus_build.Dataquery().ref_id(letter(index)).datasource(METRICS).expr(query.text)
        target.legend_format(query.legend or "__auto").format(query.form).editor_mode(p.QueryEditorMode.CODE)
        target.exemplar(query.exemplar)
        panel.with_target(target.instant() if query.now else target.range())


def say(panel: AnyPanel, words: Words, unit: str, decimals: int | None = None) -> None:
    """Give a panel its words and its unit."""
    panel.title(words.title).description(words.about).no_value(words.empty).unit(unit)
    if decimals is not None:
        panel.decimals(decimals)


def levels(*steps: tuple[float, str], base: str = GOOD) -> build.ThresholdsConfig:
    """Colour by value: `base` below the first step, then each step's colour from its value on."""
    found = [d.Threshold(value=None, color=base), *(d.Threshold(value=value, color=colour) for value, colour in steps)]
    return build.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(found)


def one_colour(colour: str) -> build.FieldColor:
    """Colour everything alike."""
    return build.FieldColor().mode(d.FieldColorModeId.FIXED).fixed_color(colour)


def by_name() -> build.FieldColor:
    """Colour by name, the same on every board: for models."""
    return build.FieldColor().mode(d.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)


def paint(panel: AnyPanel, colours: Mapping[str, str]) -> None:
    """Colour series by their names."""
    for name, colour in colours.items():
        panel.override_by_name(name, [d.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])


def state_names() -> list[d.ValueMapping]:
    """Say and colour `llmswap_model_state_code` in words."""
    return [
        d.ValueMap(
            options={
                str(code): d.ValueMappingResult(text=state, color=colour, index=code)
                for code, (state, colour) in enumerate(STATES.items())
            }
        )
    ]


def tile(
    words: Words,
    query: Query,
    unit: str = "short",
    *,
    limits: build.ThresholdsConfig | None = None,
    decimals: int | None = None,
    spark: bool = False,
    names: bool = False,
) -> stat.Panel:
    """Make one figure; neutral without `limits`, with a small curve if `spark`, of names if `names`."""
    panel = stat.Panel()
    say(panel, words, unit, decimals)
    targets(panel, [query])
    panel.graph_mode(c.BigValueGraphMode.AREA if spark else c.BigValueGraphMode.NONE)
    panel.text_mode(c.BigValueTextMode.NAME if names else c.BigValueTextMode.AUTO)
    panel.color_mode(c.BigValueColorMode.VALUE).justify_mode(c.BigValueJustifyMode.AUTO)
    panel.orientation(c.VizOrientation.AUTO).wide_layout(wide_layout=True)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(values=False))
    panel.thresholds(limits or levels(base=NEUTRAL))
    panel.color_scheme(by_name() if names else build.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
    return panel


def _legend(kind: str) -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(show_legend=kind != "none")
    if kind in {"right", "table"}:
        legend.display_mode(c.LegendDisplayMode.TABLE).calcs(["mean", "max", "lastNotNull"])
    else:
        legend.display_mode(c.LegendDisplayMode.LIST).calcs([])
    return legend.placement(c.LegendPlacement.RIGHT if kind == "right" else c.LegendPlacement.BOTTOM)


def curves(
    words: Words,
    queries: Sequence[Query],
    unit: str = "short",
    *,
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    bars: bool = False,
    percent: bool = False,
    legend: str = "list",
    every: str = "",
    limit: tuple[float, str] | None = None,
    log: bool = False,
) -> timeseries.Panel:
    """Make curves over time.

    `colours` are those of series by name; any other name has its own, the same on every board. `percent` stacks to
    100 %. `every` is the least step, such as `1m`, where single scrapes say little; `limit` is a dashed line.
    """
    panel = timeseries.Panel()
    say(panel, words, unit)
    targets(panel, queries)
    panel.color_scheme(by_name()).legend(_legend(legend))
    panel.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    panel.draw_style(c.GraphDrawStyle.BARS if bars else c.GraphDrawStyle.LINE).line_width(0 if bars else 1)
    panel.fill_opacity(80 if bars else 45 if stacked or percent else 8).show_points(c.VisibilityMode.AUTO)
    panel.point_size(4).span_nulls(span_nulls=False).axis_placement(c.AxisPlacement.AUTO)
    mode = c.StackingMode.PERCENT if percent else c.StackingMode.NORMAL if stacked else c.StackingMode.NONE
    panel.stacking(common.StackingConfig().group("A").mode(mode))
    if log:
        panel.scale_distribution(common.ScaleDistributionConfig().type(c.ScaleDistribution.LOG).log(10))
    else:
        panel.min(0)
    if limit is not None:
        panel.thresholds(levels(limit, base=CLEAR))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))
    if every:
        panel.interval(every)
    paint(panel, colours or {})
    return panel


def line_over(panel: timeseries.Panel, name: str, colour: str) -> timeseries.Panel:
    """Draw one series of a stack as a dashed line over it: a total or a limit."""
    panel.override_by_name(
        name,
        [
            d.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour}),
            d.DynamicConfigValue("custom.fillOpacity", 0),
            d.DynamicConfigValue("custom.lineWidth", 1),
            d.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
            d.DynamicConfigValue("custom.stacking", {"group": "B", "mode": "none"}),
        ],
    )
    return panel


def heat_map(words: Words, query: str, unit: str = "s", *, exemplars: bool = True) -> heatmap.Panel:
    """Make a histogram over time: darker is more."""
    panel = heatmap.Panel()
    say(panel, words, "short")
    targets(panel, [Query(query, "{{le}}", exemplar=exemplars, form=p.PromQueryFormat.HEATMAP)])
    panel.calculate(calculate=False).cell_gap(1).show_legend().interval("1m")
    panel.color(
        heatmap_build.HeatmapColorOptions()
        .mode(h.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .scale(h.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .fill("blue")
        .reverse(reverse=False)
    )
    panel.y_axis(heatmap_build.YAxisConfig().axis_placement(c.AxisPlacement.LEFT).unit(unit).reverse(reverse=False))
    panel.rows_frame(heatmap_build.RowsHeatmapOptions().layout(c.HeatmapCellLayout.AUTO))
    panel.cell_values(heatmap_build.CellValues().unit("short").decimals(0))
    panel.filter_values(heatmap_build.FilterValueRange().le(1e-9))
    panel.tooltip(heatmap_build.HeatmapTooltip().mode(c.TooltipDisplayMode.SINGLE).y_histogram(y_histogram=True))
    panel.exemplars_color("rgba(255, 120, 10, 0.8)")
    return panel


def lanes(
    words: Words,
    queries: Sequence[Query],
    *,
    mappings: list[d.ValueMapping],
    counts: Mapping[str, Sequence[tuple[float, str]]] | None = None,
) -> statetimeline.Panel:
    """Make lanes of states: the value's mapping says what and in which colour.

    Lanes of the queries whose letters are in `counts` count instead: their colours hold from a number on.
    """
    panel = statetimeline.Panel()
    say(panel, words, "short")
    targets(panel, queries)
    panel.color_scheme(one_colour(NEUTRAL)).mappings(mappings).merge_values(merge_values=True)
    panel.show_value(c.VisibilityMode.AUTO).row_height(0.85).fill_opacity(75).line_width(0)
    panel.align_value(c.TimelineValueAlignment.LEFT).legend(_legend("none"))
    panel.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.SINGLE).sort(c.SortOrder.NONE))
    for ref, steps in (counts or {}).items():
        panel.override_by_query(ref, [d.DynamicConfigValue("mappings", _ranges(steps))])
    return panel


def _ranges(steps: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
    """Colour numbers: none is nothing, then each colour from its number up to the next."""
    tops: list[float | None] = [start - 1e-6 for start, _ in steps[1:]] + [None]
    ranges = [
        {"type": "range", "options": {"from": start, "to": top, "result": {"color": colour, "index": index}}}
        for index, ((start, colour), top) in enumerate(zip(steps, tops, strict=True), 1)
    ]
    return [{"type": "value", "options": {"0": {"text": " ", "color": CLEAR, "index": 0}}}, *ranges]


def bars(
    words: Words,
    query: Query,
    unit: str = "short",
    *,
    colours: Mapping[str, str] | None = None,
    limits: build.ThresholdsConfig | None = None,
    top: float | None = None,
    decimals: int | None = None,
) -> bargauge.Panel:
    """Make one bar for each series, at the end of the time range, the longest first; `top` is where a bar is full."""
    panel = bargauge.Panel()
    say(panel, words, unit, decimals)
    targets(panel, [replace(query, text=f"sort_desc({query.text})", now=True)])
    panel.display_mode(c.BarGaugeDisplayMode.BASIC).orientation(c.VizOrientation.HORIZONTAL).min(0)
    panel.value_mode(c.BarGaugeValueMode.TEXT).show_unfilled(show_unfilled=True)
    panel.name_placement(c.BarGaugeNamePlacement.LEFT).sizing(c.BarGaugeSizing.AUTO).min_viz_height(16)
    panel.max_viz_height(32).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(""))
    if top is not None:
        panel.max(top)
    if limits is not None:
        panel.thresholds(limits).color_scheme(build.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
    else:
        panel.color_scheme(by_name())
    paint(panel, colours or {})
    return panel
