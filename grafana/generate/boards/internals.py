"""Is the proxy, or what watches it, itself the problem."""

from grafana_foundation_sdk.models import dashboard as d

from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import BAD, GOOD, OFF, PERCENTILES, SPANS
from grafana.generate.panels import Query, Words, curves, heat_map, lanes, levels, tile
from grafana.generate.promql import LATELY, RANGE, by, grown, heat, lively, mean, pick, quantile, rate
from grafana.generate.tables import Column, rows
from llmswap.telemetry import names

_ROOM = 'job=~"$job", instance=~"$instance"'
_UNSCRAPED = "No data because no llmswap is scraped: look at Prometheus' targets."


def _process(metric: str) -> str:
    return f"{metric}{{{_ROOM}}}"


def _percentiles(words: Words, metric: names.Metric, unit: str = "s") -> object:
    return curves(
        words,
        [
            Query(mean(metric, over=LATELY), "mean"),
            Query(quantile(0.95, metric), "p95"),
            Query(quantile(0.99, metric), "p99"),
        ],
        unit,
        colours=PERCENTILES,
    )


_TILES = (
    tile(
        Words("Up for", "Time since llmswap started, the youngest one (`process_start_time_seconds`).", "not scraped"),
        Query(f"min(time() - {_process('process_start_time_seconds')})", "up", now=True),
        "s",
        decimals=0,
    ),
    tile(
        Words(
            "Own time per request",
            "Mean of the time from the head of a request to its hand-over to the engine, less what it waited"
            " (`llmswap_proxy_overhead_seconds`), in the time range.",
            "no traffic",
        ),
        Query(mean(names.PROXY_OVERHEAD), "mean", now=True),
        "s",
        limits=levels((0.005, "orange"), (0.025, "red")),
    ),
    tile(
        Words(
            "Event loop late by",
            "99th percentile in the time range (`llmswap_event_loop_lag_seconds`). Above 0.1 s streams stutter.",
            "not scraped",
        ),
        Query(quantile(0.99, names.LOOP_LAG, over=RANGE), "p99", now=True),
        "s",
        limits=levels((0.025, "orange"), (0.1, "red")),
    ),
    tile(
        Words(
            "Memory",
            "Resident memory of llmswap itself, engines not counted (`process_resident_memory_bytes`).",
            "not scraped",
        ),
        Query(f"max({_process('process_resident_memory_bytes')})", "memory"),
        "bytes",
        spark=True,
        decimals=1,
    ),
    tile(
        Words(
            "Config on disk runs",
            "1: the last load of the config worked (`llmswap_config_last_reload_successful`). If not, the old one runs"
            " on: `llmswap check` says what is wrong.",
            "not scraped",
        ),
        Query(by("", pick(names.CONFIG_RELOAD_OK), "min"), "config", now=True),
        limits=levels((1, GOOD), base=BAD),
    ).mappings(
        [
            d.ValueMap(
                options={
                    "0": d.ValueMappingResult(text="no", color=BAD, index=0),
                    "1": d.ValueMappingResult(text="yes", color=GOOD, index=1),
                }
            )
        ]
    ),
    tile(
        Words(
            "Lost of what it tells",
            "In the time range: steps that the journal could not keep, steps that metrics failed on, and spans that"
            " were not sent. The next panels say which.",
            "not scraped",
        ),
        Query(
            f"{grown(names.JOURNAL_DROPPED)} + {grown(names.OBSERVER_ERRORS)}"
            f" + ({grown(names.TRACE_SPANS, result='!exported')} or vector(0))",
            "lost",
            now=True,
        ),
        limits=levels((0.5, "orange")),
        decimals=0,
    ),
)
_OVERHEAD = heat_map(
    Words(
        "Own time per request",
        "Head of the request to its hand-over to the engine, less its wait (`llmswap_proxy_overhead_seconds`); the"
        " dots are traces. Large bodies and filters are what takes time here.",
        "No data because no request came lately.",
    ),
    heat(names.PROXY_OVERHEAD),
)
_LAG = _percentiles(
    Words(
        "Event loop lag",
        "How late what is due runs (`llmswap_event_loop_lag_seconds`). Peaks with CPU at 100 %: the machine, or too"
        " much for one core; without: report it.",
        _UNSCRAPED,
    ),
    names.LOOP_LAG,
)
_CPU = curves(
    Words(
        "CPU",
        "Cores that llmswap itself uses (`process_cpu_seconds_total`). It serves on one: near 1 it is the bottleneck.",
        _UNSCRAPED,
    ),
    [Query(f"rate({_process('process_cpu_seconds_total')}[{LATELY}])", "{{instance}}")],
    "percentunit",
    limit=(0.9, BAD),
)
_FILES = curves(
    Words(
        "Open files",
        "Descriptors in use, of those allowed (`process_open_fds`, `process_max_fds`): about two per stream.",
        _UNSCRAPED,
    ),
    [Query(f"{_process('process_open_fds')} / {_process('process_max_fds')}", "{{instance}}")],
    "percentunit",
)
_RENDER = _percentiles(
    Words(
        "Making /metrics",
        "What an exposition took (`llmswap_metrics_render_seconds`), in a thread; it grows with the models.",
        _UNSCRAPED,
    ),
    names.RENDER_SECONDS,
)
_HOLD = _percentiles(
    Words(
        "... and its hold on the event loop",
        "How long an exposition held the event loop (`llmswap_metrics_snapshot_seconds`): streams feel this.",
        _UNSCRAPED,
    ),
    names.RENDER_HOLD_SECONDS,
)
_POLL = _percentiles(
    Words(
        "A look at the GPUs",
        "What a look takes (`llmswap_gpu_poll_duration_seconds`), in a thread. Seconds: the driver hangs.",
        "No data because no GPU can be seen.",
    ),
    names.GPU_POLL_DURATION,
)
_SPANS = curves(
    Words(
        "Spans",
        "By what became of them (`llmswap_trace_spans_total`). `dropped_queue` and `failed`: the receiver is away or"
        " slow.",
        "No data because traces are off: telemetry.traces.endpoint.",
    ),
    [Query(rate(names.TRACE_SPANS, of="result"), "{{result}}")],
    "ops",
    colours=SPANS,
    stacked=True,
)
_SPAN_QUEUE = curves(
    Words(
        "Spans waiting",
        "For export (`llmswap_trace_queue_length`); at 8192 they are dropped.",
        "No data because traces are off.",
    ),
    [Query(by("instance", pick(names.TRACE_QUEUE)), "{{instance}}")],
)
_DROPPED = curves(
    Words(
        "Lost lines and steps",
        "Steps the journal could not keep (`llmswap_journal_dropped_lines_total`: the disk), steps metrics failed on"
        " (`llmswap_metrics_errors_total`: report it), log bytes that standard output did not take"
        " (`llmswap_stdout_dropped_bytes_total`: who reads it?), or that readers of `/logs/stream` were too slow for"
        " (`llmswap_log_readers_dropped_bytes_total`).",
        _UNSCRAPED,
    ),
    [
        Query(rate(names.JOURNAL_DROPPED), "journal lines"),
        Query(rate(names.OBSERVER_ERRORS), "metrics errors"),
        Query(rate(names.STDOUT_DROPPED), "log bytes"),
        Query(rate(names.LOG_READERS_DROPPED), "log readers' bytes"),
    ],
    "ops",
    colours={"journal lines": "orange", "metrics errors": BAD, "log bytes": OFF, "log readers' bytes": "purple"},
)
_SAMPLES = curves(
    Words(
        "Samples per scrape",
        "How many series each target has (`scrape_samples_scraped`). It follows the number of models; anything else"
        " that makes it grow is a fault.",
        _UNSCRAPED,
    ),
    [Query('scrape_samples_scraped{job=~"llmswap.*"}', "{{job}} {{model}} {{instance}}")],
)
_TARGETS = lanes(
    Words(
        "Scrape targets",
        "A lane per target of llmswap and of the engines behind it (`up`). Engines come and go with their models.",
        "No data because Prometheus has no such target.",
    ),
    [Query('up{job=~"llmswap.*"}', "{{job}} {{model}} {{instance}}")],
    mappings=[
        d.ValueMap(
            options={
                "0": d.ValueMappingResult(text="down", color=BAD, index=0),
                "1": d.ValueMappingResult(text="up", color=GOOD, index=1),
            }
        )
    ],
)
_UNKNOWN = curves(
    Words(
        "Requests for unknown models",
        "404 for want of such a model (`llmswap_unknown_model_requests_total`). Their names are in the log: a typing"
        " error in a client, or an alias to add.",
        _UNSCRAPED,
    ),
    [Query(rate(names.UNKNOWN_MODEL_REQUESTS), "unknown")],
    "reqps",
    colours={"unknown": "orange"},
)
_SILENT = curves(
    Words(
        "Answers without a token count",
        "Answers that did not say what they took (`llmswap_requests_without_usage_total`), and tokens that were"
        " counted as chunks instead (`llmswap_estimated_tokens_total`). *Cache unknown*: answers after a swap that did"
        " not say what came from a cache (`llmswap_prefill_after_swap_requests_total`).",
        _UNSCRAPED,
    ),
    [
        Query(lively(names.WITHOUT_USAGE, of="model"), "{{model}} silent answers"),
        Query(lively(names.ESTIMATED_TOKENS, of="model"), "{{model}} estimated tokens"),
        Query(lively(names.PREFILL_REQUESTS, of="model", cached="unknown"), "{{model}} cache unknown"),
    ],
    "ops",
)
_BUILD = rows(
    Words(
        "What runs",
        "Build and number of configured models (`llmswap_build_info`, `llmswap_config_models`).",
        _UNSCRAPED,
    ),
    {"instance": "Instance", "version": "Version", "revision": "Revision", "python_version": "Python"},
    [
        Column(
            "Models",
            by(
                "instance version revision python_version",
                f"{pick(names.BUILD_INFO)} * on (job, instance) group_left () {pick(names.CONFIG_MODELS)}",
                "max",
            ),
            decimals=0,
        )
    ],
    links=False,
)

BOARD = Board(
    "llmswap-internals",
    "Proxy internals",
    "Is llmswap itself, or what watches it, the problem?",
    [
        Row("", [Line(4, [(4, panel) for panel in _TILES]), Line(8, [(8, _LAG), (8, _OVERHEAD), (8, _CPU)])]),
        Row(
            "What is told to Prometheus",
            [Line(8, [(12, _TARGETS), (12, _SAMPLES)]), Line(7, [(8, _RENDER), (8, _HOLD), (8, _POLL)])],
        ),
        Row("Traces, journal, log", [Line(7, [(8, _SPANS), (8, _SPAN_QUEUE), (8, _DROPPED)])]),
        Row(
            "Odd requests, and the build",
            [Line(7, [(8, _UNKNOWN), (8, _SILENT), (8, _FILES)]), Line(5, [(24, _BUILD)])],
        ),
    ],
)
