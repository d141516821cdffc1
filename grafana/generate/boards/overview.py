"""Is it well, who is on the GPU, what do users feel, what does swapping cost."""

from grafana.generate.boards import pieces
from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import LIMIT, STARTS
from grafana.generate.panels import Query, Words, curves, heat_map, levels, line_over, tile
from grafana.generate.promql import by, good_ratio, grown, heat, lively, pick, quantile
from grafana.generate.tables import Column, rows, state_column
from llmswap.telemetry import names

_UP = tile(
    Words(
        "On the GPU",
        "Models that are ready (`llmswap_model_state`). None for long while requests wait: see *Swaps*.",
        "no model is up",
    ),
    Query(by("model", pick(names.MODEL_STATE, state="ready"), "max") + " == 1", "{{model}}", now=True),
    names=True,
)
_SERVED = tile(
    Words("Being served", "Requests at an engine now (`llmswap_requests_in_flight`).", "not scraped"),
    Query(by("", pick(names.IN_FLIGHT)), "served"),
    spark=True,
    decimals=0,
)
_WAITING = tile(
    Words(
        "Waiting",
        "Requests in the queue now (`llmswap_queue_depth`). Yellow from 1, orange from 10, red from 50: *Queue and"
        " SLO* says what they wait for.",
        "not scraped",
    ),
    Query(by("", pick(names.QUEUE_DEPTH)), "waiting"),
    limits=levels((1, "yellow"), (10, "orange"), (50, "red"), base="text"),
    spark=True,
    decimals=0,
)
_GOOD = tile(
    Words(
        "Good answers",
        "Share of requests in the time range that did not fail for reasons on our side (`llmswap_requests_total`)."
        " Orange below 99 %, red below 95 %: *Requests by outcome* says why.",
        "no traffic",
    ),
    Query(good_ratio(), "good", now=True),
    "percentunit",
    limits=levels((0.95, "orange"), (0.99, "green"), base="red"),
    decimals=1,
)
_FIRST_UP = tile(
    Words(
        "First token, warm",
        "95th percentile of the time to the first token in the time range, of streams whose model was up"
        ' (`llmswap_time_to_first_token_seconds`, `residency="hit"`). Long: the engine\'s prefill, or its limit.',
        "no streams",
    ),
    Query(quantile(0.95, names.TIME_TO_FIRST_TOKEN, over="$__range", residency="hit"), "p95", now=True),
    "s",
)
_FIRST_SWAPPED = tile(
    Words(
        "First token, swap",
        'The same of streams that waited for a swap (`residency="miss"`). Long: see *Swaps* for the phase to shorten.',
        "no swaps",
    ),
    Query(quantile(0.95, names.TIME_TO_FIRST_TOKEN, over="$__range", residency="miss"), "p95", now=True),
    "s",
)
_LOST = pieces.lost_share(
    Words(
        "GPU time lost",
        "Share of the GPUs' time in the time range in which a swap was on and nobody was served"
        " (`llmswap_gpu_phase_seconds_total`). Orange from 10 %, red from 30 %: *Swaps* says who evicts whom.",
        "not scraped",
    ),
)
_ALERTS = rows(
    Words(
        "Alerts",
        "What fires now (`ALERTS`). The runbook has a heading for each: what it means, who causes it, what to change.",
        "No alert fires.",
    ),
    {"alertname": "Alert", "severity": "Severity"},
    [
        Column(
            "Firing",
            'sum by (alertname, severity) (ALERTS{alertname=~"LLMSwap.*", alertstate="firing"})',
            "short",
            width=80,
            limits=((1, "semi-dark-red"),),
        )
    ],
    links=False,
)
_MODELS = rows(
    Words(
        "Models",
        "The time range, one model per row; a name opens its board. First tokens are 95th percentiles. *Back too"
        " soon*: swaps to a model that was evicted a moment ago (`llmswap_swap_thrash_total`).",
        "No data because no llmswap is scraped.",
    ),
    {"model": "Model"},
    [
        state_column(by("model", pick(names.MODEL_STATE_CODE), "max")),
        Column("Requests", grown(names.REQUESTS, of="model", model="!_unknown"), decimals=0),
        Column(
            "Waiting", by("model", pick(names.QUEUE_DEPTH)), decimals=0, limits=((1, "dark-yellow"), (10, "orange"))
        ),
        Column(
            "First token, warm", quantile(0.95, names.TIME_TO_FIRST_TOKEN, "model", "$__range", residency="hit"), "s"
        ),
        Column(
            "First token, swap",
            quantile(0.95, names.TIME_TO_FIRST_TOKEN, "model", "$__range", residency="miss"),
            "s",
        ),
        Column("Output tokens", grown(names.TOKENS, of="model", token_type="output")),
        Column("Swaps", pieces.per_model(grown(names.SWAPS, of="to_model")), decimals=0),
        Column(
            "Back too soon",
            pieces.per_model(grown(names.SWAP_THRASH, of="to_model")),
            decimals=0,
            limits=((1, "dark-orange"),),
        ),
        Column("GPU memory", by("model", pick(names.MODEL_GPU_MEMORY)), "bytes", decimals=1),
        Column("Host memory", by("model", pick(names.MODEL_HOST_MEMORY)), "bytes", decimals=1),
    ],
    sort="Requests",
)

_FIRST_TOKEN = heat_map(
    Words(
        "Time to first token",
        "Streams by the time from the head of the request to the first chunk with content"
        " (`llmswap_time_to_first_token_seconds`); the dots are traces. Two bands are normal: models that were up, and"
        " swaps above them.",
        "No data because no stream had content lately.",
    ),
    heat(names.TIME_TO_FIRST_TOKEN),
)
_HITS = curves(
    Words(
        "Came when the model was up",
        "Share of streams that needed no swap (`llmswap_time_to_first_token_seconds_count`, `residency`). Low: models"
        " that take turns; *Capacity tuning* says what would help.",
        "No data because no stream had content lately.",
    ),
    [Query(pieces.hit_ratio(), "was up")],
    "percentunit",
    colours={"was up": STARTS["warm"]},
    every="1m",
).max(1)
_TOKENS = curves(
    Words(
        "Output tokens per second",
        "As engines count them (`llmswap_tokens_total`), when an answer ends. What engines do not say is missing.",
        "No data because no answer has said its tokens.",
    ),
    [Query(lively(names.TOKENS, of="model", token_type="output"), "{{model}}")],
    stacked=True,
)
_SWAPS = curves(
    Words(
        "Swaps",
        "Swaps that ended, by how (`llmswap_swaps_total`): `cold` starts a process, `wake1` and `wake2` wake one. A"
        " steady row of bars under load is thrashing.",
        "No data because no swap has ended lately.",
    ),
    [Query(grown(names.SWAPS, of="kind", over="$__rate_interval") + " > 0", "{{kind}}")],
    colours=STARTS,
    stacked=True,
    bars=True,
    every="1m",
)
_MEMORY = line_over(
    curves(
        Words(
            "GPU memory by model",
            "Device memory of each model's processes (`llmswap_model_gpu_memory_bytes`) and of nobody of ours"
            " (*other*: driver, leaks, strangers). The dashed line is what there is.",
            "No data because no GPU can be seen: llmswap_gpu_poll_success says whether that is a fault.",
        ),
        [
            Query(by("model", pick(names.MODEL_GPU_MEMORY)), "{{model}}"),
            Query(by("", pick(names.GPU_MEMORY_UNATTRIBUTED)), "other"),
            Query(by("", pick(names.GPU_MEMORY_TOTAL)), "total"),
        ],
        "bytes",
        colours={"other": "#6e7681"},
        stacked=True,
    ),
    "total",
    LIMIT,
)
_USE = curves(
    Words(
        "GPU use and power",
        "Share of time in which a kernel ran (`llmswap_gpu_utilization_ratio`), and power of its limit"
        " (`llmswap_gpu_power_watts`). Low use with a full queue: the time goes into swaps, or the engine waits.",
        "No data because no GPU can be seen.",
    ),
    [
        Query(by("gpu", pick(names.GPU_UTILIZATION), "max"), "GPU {{gpu}} use"),
        Query(f"{by('gpu', pick(names.GPU_POWER))} / {by('gpu', pick(names.GPU_POWER_LIMIT))}", "GPU {{gpu}} power"),
    ],
    "percentunit",
).max(1)

BOARD = Board(
    "llmswap-overview",
    "Overview",
    "Is it well, who is on the GPU, what do users feel, and what does swapping cost?",
    [
        Row(
            "",
            [
                Line(
                    4,
                    [
                        (6, _UP),
                        (3, _SERVED),
                        (3, _WAITING),
                        (3, _GOOD),
                        (3, _FIRST_UP),
                        (3, _FIRST_SWAPPED),
                        (3, _LOST),
                    ],
                ),
                Line(9, [(17, pieces.residency("Who is up, who waits")), (7, _ALERTS)]),
            ],
        ),
        Row("Models", [Line(8, [(24, _MODELS)])]),
        Row(
            "Requests",
            [
                Line(
                    8,
                    [
                        (8, pieces.requests_by_outcome()),
                        (8, pieces.wait_causes("Waiting, by cause")),
                        (8, _FIRST_TOKEN),
                    ],
                ),
                Line(7, [(8, _TOKENS), (8, _HITS), (8, _SWAPS)]),
            ],
        ),
        Row("GPU", [Line(8, [(8, pieces.gpu_time()), (8, _MEMORY), (8, _USE)])]),
    ],
    swaps=True,
)
