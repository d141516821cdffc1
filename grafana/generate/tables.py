"""Tables: one row for each model, pair or alert, put together from several queries; and matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import tempo as tempo_build
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import prometheus as p

from grafana.generate.palette import CLEAR, NEUTRAL
from grafana.generate.panels import TRACES, Query, Words, letter, levels, say, state_names, targets

MODEL_BOARD = (
    "/d/llmswap-model/llmswap-model?${__url_time_range}&${datasource:queryparam}&${job:queryparam}"
    "&${instance:queryparam}&var-model=${__value.raw}"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of figures.

    Attributes:
        query: Gives one value for each row, with the labels that the table is about.
        limits: Background colours by value, as (from, colour).
        bar: Draw the figure as a bar.
        properties: Anything else that Grafana knows, by its id.
    """

    title: str
    query: str
    unit: str = "short"
    decimals: int | None = None
    width: int | None = None
    limits: tuple[tuple[float, str], ...] = ()
    bar: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)


def state_column(query: str) -> Column:
    """Make a column out of `llmswap_model_state_code`: the state in words, on its colour."""
    shown = {"mappings": state_names(), "custom.cellOptions": {"type": "color-background", "mode": "basic"}}
    return Column("State", query, "none", width=105, properties=shown)


def rows(
    words: Words,
    keys: Mapping[str, str],
    columns: Sequence[Column],
    *,
    sort: str = "",
    links: bool = True,
) -> table.Panel:
    """Make a table.

    `keys` are the labels that name a row, and what their columns are called. `sort` is the column by which it is
    sorted, the most first; without it, that is the first key. With `links` models' names lead to their board.
    """
    panel = _table(words)
    form = p.PromQueryFormat.TABLE
    targets(panel, [Query(column.query, now=True, form=form) for column in columns])
    values = ["Value"] if len(columns) == 1 else [f"Value #{letter(index)}" for index in range(len(columns))]
    if len(columns) > 1:
        panel.with_transformation(d.DataTransformerConfig(id_val="merge", options={}))
    renamed = {**keys, **{value: column.title for value, column in zip(values, columns, strict=True)}}
    order = {name: index for index, name in enumerate(["Time", *keys, *values])}
    organised = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed}
    panel.with_transformation(d.DataTransformerConfig(id_val="organize", options=organised))
    for column in columns:
        panel.override_by_name(column.title, _shown(column))
    for label, title in keys.items():
        if links and label in {"model", "to_model"}:
            link = {"title": "Open the model's board", "url": MODEL_BOARD}
            panel.override_by_name(title, [d.DynamicConfigValue("links", [link])])
    by = common.TableSortByFieldState().display_name(sort or next(iter(keys.values()))).desc(desc=bool(sort))
    return panel.sort_by([by])


def _table(words: Words) -> table.Panel:
    panel = table.Panel()
    say(panel, words, "short")
    panel.show_header(show_header=True).cell_height(c.TableCellHeight.SM).align(c.FieldTextAlignment.AUTO)
    return panel.filterable(filterable=False).thresholds(levels(base=NEUTRAL))


def _shown(column: Column) -> list[d.DynamicConfigValue]:
    found = {"unit": column.unit, "noValue": "-", **column.properties}
    if column.decimals is not None:
        found["decimals"] = column.decimals
    if column.width is not None:
        found["custom.width"] = column.width
    if column.limits:
        steps = [{"value": None, "color": CLEAR}, *({"value": at, "color": colour} for at, colour in column.limits)]
        found |= {
            "thresholds": {"mode": "absolute", "steps": steps},
            "custom.cellOptions": {"type": "color-background", "mode": "basic"},
        }
    if column.bar:
        found |= {
            "custom.cellOptions": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
            "color": {"mode": "fixed", "fixedColor": "semi-dark-orange"},
            "min": 0,
        }
    return [d.DynamicConfigValue(name, value) for name, value in found.items()]


def matrix(
    words: Words,
    query: str,
    corner: str,
    unit: str = "short",
    *,
    down: str = "from_model",
    across: str = "to_model",
    decimals: int = 0,
) -> table.Panel:
    """Make a matrix, of who had to go (rows) for whom (columns) say; the darker a cell, the more.

    The query gives values by the labels `down` and `across`; `corner` is written where rows and columns meet.
    """
    panel = _table(words)
    targets(panel, [Query(query, now=True, form=p.PromQueryFormat.TABLE)])
    panel.with_transformation(_sorted(across))  # columns stand in the order in which they are met first
    turned = {"rowField": down, "columnField": across, "valueField": "Value", "emptyValue": "zero"}
    panel.with_transformation(d.DataTransformerConfig(id_val="groupingToMatrix", options=turned))
    first = f"{down}\\{across}"
    panel.with_transformation(_sorted(first))
    panel.with_transformation(
        d.DataTransformerConfig(id_val="organize", options={"excludeByName": {}, "renameByName": {first: corner}})
    )
    panel.unit(unit).decimals(decimals).min(0)
    panel.color_scheme(build.FieldColor().mode(d.FieldColorModeId.CONTINUOUS_YL_RD))
    panel.mappings([d.ValueMap(options={"0": d.ValueMappingResult(text="·", color=CLEAR, index=0)})])
    panel.cell_options(c.TableColoredBackgroundCellOptions(mode=c.TableCellBackgroundDisplayMode.BASIC))
    panel.align(c.FieldTextAlignment.CENTER)
    nobody = [d.ValueMap(options={"_none": d.ValueMappingResult(text="(nobody)", index=0)})]
    panel.override_by_name(
        corner,
        [
            d.DynamicConfigValue("mappings", nobody),
            d.DynamicConfigValue("unit", "string"),
            d.DynamicConfigValue("custom.cellOptions", {"type": "auto"}),
            d.DynamicConfigValue("custom.align", "left"),
            d.DynamicConfigValue("custom.width", 150),
        ],
    )
    return panel


def _sorted(field: str) -> d.DataTransformerConfig:
    return d.DataTransformerConfig(id_val="sortBy", options={"fields": {}, "sort": [{"field": field}]})


def traces(words: Words, query: str) -> table.Panel:
    """Make a table of the newest traces that a TraceQL query finds."""
    panel = _table(words)
    panel.datasource(TRACES)
    return panel.with_target(
        tempo_build.Dataquery().ref_id("A").datasource(TRACES).query_type("traceql").query(query).limit(20)
    )
