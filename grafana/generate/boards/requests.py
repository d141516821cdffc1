"""Where the time of a request goes: queue, swap, prefill, decode; and what clients get."""

from collections.abc import Mapping

from grafana.generate.boards import pieces
from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import PERCENTILES, ROUND_TRIP, STARTS, TOKENS
from grafana.generate.panels import AnyPanel, Query, Words, curves, heat_map, levels, tile
from grafana.generate.promql import (
    LATELY,
    OF_MODEL,
    RANGE,
    by,
    good_ratio,
    grown,
    heat,
    lively,
    mean,
    pick,
    quantile,
    rate,
)
from grafana.generate.tables import Column, rows
from llmswap.telemetry import names

_MINE = {"model": OF_MODEL}


def _wait(over: str, of: str = "") -> str:
    return mean(names.QUEUE_WAIT, of, over, outcome="admitted", **_MINE)


def _prefill(over: str, of: str = "") -> str:
    """Give the mean time of streams to their first token, less what requests waited on average."""
    return f"clamp_min({mean(names.TIME_TO_FIRST_TOKEN, of, over, **_MINE)} - {_wait(over, of)}, 0)"


def _decode(over: str, of: str = "") -> str:
    """Give the mean time at the engine, less the prefill."""
    return f"clamp_min({mean(names.UPSTREAM_DURATION, of, over, **_MINE)} - {_prefill(over, of)}, 0)"


def _waited(of: str, **labels: str) -> str:
    """Give the seconds that a request waited for a cause on average, over the time range."""
    waited = grown(names.WAIT_SECONDS, of=of, **_MINE, **labels)
    return f"{waited} / ({grown(names.QUEUE_WAIT, 'count', of, outcome='admitted', **_MINE)} > 0)"


_TILES = (
    tile(
        Words("Requests / s", "Finished requests (`llmswap_requests_total`).", "not scraped"),
        Query(rate(names.REQUESTS, **_MINE), "requests"),
        "reqps",
        spark=True,
    ),
    tile(
        Words(
            "Good answers",
            "Share of requests in the time range that did not fail for reasons on our side. Orange below 99 %, red"
            " below 95 %.",
            "no traffic",
        ),
        Query(good_ratio(**_MINE), "good", now=True),
        "percentunit",
        limits=levels((0.95, "orange"), (0.99, "green"), base="red"),
        decimals=1,
    ),
    tile(
        Words(
            "First token, warm",
            "95th percentile in the time range, streams whose model was up (`llmswap_time_to_first_token_seconds`).",
            "no streams",
        ),
        Query(quantile(0.95, names.TIME_TO_FIRST_TOKEN, over=RANGE, residency="hit", **_MINE), "p95", now=True),
        "s",
    ),
    tile(
        Words("First token, swap", "The same of streams that waited for a swap.", "no swaps"),
        Query(quantile(0.95, names.TIME_TO_FIRST_TOKEN, over=RANGE, residency="miss", **_MINE), "p95", now=True),
        "s",
    ),
    tile(
        Words(
            "Whole answer",
            "95th percentile of the duration of good requests in the time range (`llmswap_request_duration_seconds`).",
            "no traffic",
        ),
        Query(quantile(0.95, names.REQUEST_DURATION, over=RANGE, outcome="ok", **_MINE), "p95", now=True),
        "s",
    ),
    tile(
        Words(
            "Per output token",
            "95th percentile in the time range, streams that say their tokens"
            " (`llmswap_time_per_output_token_seconds`). Above 0.1 s reading aloud is slower than speech.",
            "no streams",
        ),
        Query(quantile(0.95, names.TIME_PER_OUTPUT_TOKEN, over=RANGE, **_MINE), "p95", now=True),
        "s",
    ),
    tile(
        Words(
            "Longest gap",
            "99th percentile of the longest silence within a stream (`llmswap_stream_stall_seconds`). Seconds: the"
            " engine prefills others meanwhile, or it is out of KV cache.",
            "no streams",
        ),
        Query(quantile(0.99, names.STREAM_STALL, over=RANGE, **_MINE), "p99", now=True),
        "s",
    ),
    tile(
        Words(
            "Output tokens / s",
            "Tokens of answers that ended (`llmswap_tokens_total`).",
            "not scraped",
        ),
        Query(rate(names.TOKENS, token_type="output", **_MINE), "tokens"),
        spark=True,
        decimals=1,
    ),
)
_ROUND_TRIP = curves(
    Words(
        "Where a request's time goes",
        "Mean seconds per request: waits by cause (`llmswap_request_wait_seconds_total`), then *prefill*: the first"
        " token less the wait (`llmswap_time_to_first_token_seconds`, streams), then *decode*: the rest at the engine"
        " (`llmswap_upstream_request_duration_seconds`; answers that are not streamed are all in here). Orange on top:"
        " *Swaps*. Light green: long prompts. Green: long answers.",
        "No data because no request was served lately.",
    ),
    [
        Query(
            f"{rate(names.WAIT_SECONDS, of='cause', **_MINE)}"
            f" / scalar({rate(names.QUEUE_WAIT, 'count', outcome='admitted', **_MINE)} > 0)",
            "{{cause}}",
        ),
        Query(_prefill(LATELY), "prefill"),
        Query(_decode(LATELY), "decode"),
    ],
    "s",
    colours=ROUND_TRIP,
    stacked=True,
    bars=True,
    legend="right",
    every="1m",
)
_BY_MODEL = rows(
    Words(
        "The same, by model",
        "Mean seconds per request in the time range, in the order in which a request meets them; a name opens the"
        " model's board.",
        "No data because no request was served in the time range.",
    ),
    {"model": "Model"},
    [
        Column("Served", grown(names.QUEUE_WAIT, "count", "model", outcome="admitted", **_MINE) + " > 0", decimals=0),
        Column("Queue", _waited("model", cause="!swap"), "s", limits=((5, "dark-yellow"), (30, "dark-orange"))),
        Column("Swap", _waited("model", cause="swap"), "s", limits=((5, "dark-yellow"), (30, "dark-orange"))),
        Column("Prefill", _prefill(RANGE, "model"), "s"),
        Column("Decode", _decode(RANGE, "model"), "s"),
        Column("Per token, p95", quantile(0.95, names.TIME_PER_OUTPUT_TOKEN, "model", RANGE, **_MINE), "s"),
        Column("Model was up", pieces.hit_ratio(RANGE, "model", **_MINE), "percentunit", decimals=0),
    ],
    sort="Swap",
)
_FIRST = pieces.first_token(
    Words(
        "First token, by how the model came up",
        "95th percentile (`llmswap_time_to_first_token_seconds`, `start`): `warm` was up, `cold` was started, `wake1`"
        " and `wake2` were woken. The dots are traces: click one.",
        "No data because no stream had content lately.",
    ),
    **_MINE,
)
_FIRST_HEAT = heat_map(
    Words(
        "Time to first token",
        "Streams by the time to their first token; the dots are traces.",
        "No data because no stream had content lately.",
    ),
    heat(names.TIME_TO_FIRST_TOKEN, **_MINE),
)
_ROUTES = curves(
    Words(
        "Requests by route",
        "Finished requests by what was asked for (`llmswap_requests_total`, `route`).",
        "No data because no request has ended lately.",
    ),
    [Query(lively(names.REQUESTS, of="route", **_MINE), "{{route}}")],
    "reqps",
    stacked=True,
)
_CODES = curves(
    Words(
        "Requests by status",
        "What clients got (`llmswap_requests_total`, `code`); 499: they left before. 404 for unknown models is on"
        " *Proxy internals*.",
        "No data because no request has ended lately.",
    ),
    [Query(lively(names.REQUESTS, of="code", **_MINE), "{{code}}")],
    "reqps",
    colours={"200": "green", "499": "#6e7681", "429": "yellow", "503": "orange", "502": "red", "500": "dark-red"},
    stacked=True,
)
_DURATIONS = heat_map(
    Words(
        "Whole requests",
        "Head of the request to the last byte (`llmswap_request_duration_seconds`), good ones; the dots are traces.",
        "No data because no request has ended well lately.",
    ),
    heat(names.REQUEST_DURATION, outcome="ok", **_MINE),
)
_TOKENS = curves(
    Words(
        "Tokens per second, by type",
        "As engines count them (`llmswap_tokens_total`). `input` holds `cached_input`, `output` holds `reasoning`, so"
        " these are not stacked. Little `cached_input`: prompts are read anew; do swaps throw caches away?",
        "No data because no answer has said its tokens lately.",
    ),
    [Query(lively(names.TOKENS, of="token_type", **_MINE), "{{token_type}}")],
    colours=TOKENS,
    legend="right",
)
_PER_TOKEN = curves(
    Words(
        "Time per output token",
        "Of streams that say their tokens (`llmswap_time_per_output_token_seconds`). Rises with how many are served at"
        " once: `concurrencyLimit` is the knob.",
        "No data because no stream has said its tokens lately.",
    ),
    [
        Query(quantile(0.5, names.TIME_PER_OUTPUT_TOKEN, **_MINE), "p50"),
        Query(quantile(0.95, names.TIME_PER_OUTPUT_TOKEN, **_MINE), "p95"),
    ],
    "s",
    colours=PERCENTILES,
    every="1m",
)
_GAPS = curves(
    Words(
        "Longest gap in a stream",
        "99th percentile by model (`llmswap_stream_stall_seconds`).",
        "No data because no stream has ended lately.",
    ),
    [Query(quantile(0.99, names.STREAM_STALL, "model", **_MINE), "{{model}}")],
    "s",
    every="1m",
)
_ERRORS = pieces.engine_errors(
    Words(
        "Trouble with engines",
        "What went wrong between llmswap and engines (`llmswap_upstream_errors_total`). `connect` and `reset`: it"
        " died; `timeout`: `timeouts`; `bad_stream`: its stream lacked an end.",
        "No trouble with engines lately.",
    ),
    **_MINE,
)
_IN_FLIGHT = curves(
    Words(
        "Served at once",
        "Requests at engines (`llmswap_requests_in_flight`).",
        "No data because no llmswap is scraped.",
    ),
    [Query(by("model", pick(names.IN_FLIGHT, **_MINE)), "{{model}}")],
    stacked=True,
)


def _load_test(words: tuple[str, str], query: Query, unit: str, colours: Mapping[str, str] | None = None) -> AnyPanel:
    title, about = words
    empty = "No data because no load test runs: make load, or the stack's profile load."
    return curves(Words(title, about, empty), [query], unit, colours=colours, every="15s")


_SEEN_BY_LOCUST = Row(
    "The same, as load tests see it (profile load)",
    [
        Line(
            8,
            [
                (
                    6,
                    _load_test(
                        (
                            "Load: callers",
                            "Callers of the scenario that runs (`locust_users`). Their figures are in real seconds.",
                        ),
                        Query('sum by (scenario) (locust_users{job="locust"})', "{{scenario}}"),
                        "short",
                    ),
                ),
                (
                    6,
                    _load_test(
                        (
                            "Load: requests by ending",
                            (
                                "What callers saw become of their requests (`locust_requests_total`). More trouble"
                                " than in *Requests by outcome* lies between them and llmswap."
                            ),
                        ),
                        Query(
                            'sum by (ending) (rate(locust_requests_total{job="locust"}[$__rate_interval]))',
                            "{{ending}}",
                        ),
                        "reqps",
                    ),
                ),
                (
                    6,
                    _load_test(
                        (
                            "Load: first token",
                            (
                                "95th percentile, as callers see it (`locust_time_to_first_token_seconds`). Much above"
                                " llmswap's own: the network, or the load generator is out of CPU."
                            ),
                        ),
                        Query(
                            "histogram_quantile(0.95, sum by (residency, le)"
                            ' (rate(locust_time_to_first_token_seconds_bucket{job="locust"}[$__rate_interval]))) >= 0',
                            "{{residency}}",
                        ),
                        "s",
                        {"hit": STARTS["warm"], "miss": STARTS["cold"], "unknown": "#6e7681"},
                    ),
                ),
                (
                    6,
                    _load_test(
                        (
                            "Load: longest gap",
                            "99th percentile of the longest silence in a stream (`locust_stream_stall_seconds`).",
                        ),
                        Query(
                            "histogram_quantile(0.99, sum by (model, le)"
                            ' (rate(locust_stream_stall_seconds_bucket{job="locust"}[$__rate_interval]))) >= 0',
                            "{{model}}",
                        ),
                        "s",
                    ),
                ),
            ],
        )
    ],
    collapsed=True,
)

BOARD = Board(
    "llmswap-requests",
    "Requests and latency",
    "Where does the time of a request go: queue, swap, prefill, decode?",
    [
        Row("", [Line(4, [(3, panel) for panel in _TILES]), Line(10, [(12, _ROUND_TRIP), (12, _BY_MODEL)])]),
        Row("First token", [Line(8, [(12, _FIRST), (12, _FIRST_HEAT)])]),
        Row("Answers", [Line(8, [(8, _PER_TOKEN), (8, _TOKENS), (8, _GAPS)])]),
        Row(
            "Requests",
            [
                Line(8, [(8, pieces.requests_by_outcome(**_MINE)), (8, _CODES), (8, _ROUTES)]),
                Line(8, [(8, _DURATIONS), (8, _IN_FLIGHT), (8, _ERRORS)]),
            ],
        ),
        _SEEN_BY_LOCUST,
    ],
    model="all",
)
