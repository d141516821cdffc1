"""What swaps cost, who evicts whom, which phase takes the time, and whether a swap pays."""

from grafana.generate.boards import pieces
from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import STARTS, SWAP_OUTCOMES, SWAP_PHASES
from grafana.generate.panels import Query, Words, curves, heat_map, levels, tile
from grafana.generate.promql import LATELY, RANGE, by, grown, heat, mean, pick, quantile, rate, ratio, relabelled
from grafana.generate.tables import Column, matrix, rows, traces
from llmswap.telemetry import names

_OF = "the time range"
_COUNT = tile(
    Words("Swaps", f"Swaps that ended in {_OF} (`llmswap_swaps_total`), failed ones included.", "not scraped"),
    Query(grown(names.SWAPS), "swaps", now=True),
    decimals=0,
)
_FAILED = tile(
    Words(
        "Failed swaps",
        f"Swaps in {_OF} that did not bring the model up, those that were called off (`aborted`) left out: *What became"
        " of swaps* says how; the log, why.",
        "not scraped",
    ),
    Query(grown(names.SWAPS, outcome="!~ok|aborted"), "failed", now=True),
    limits=levels((0.5, "red")),
    decimals=0,
)
_TYPICAL = tile(
    Words(
        "Typical swap",
        f"Median from decision to ready in {_OF} (`llmswap_swap_duration_seconds`).",
        "no swap",
    ),
    Query(quantile(0.5, names.SWAP_DURATION, over=RANGE), "p50", now=True),
    "s",
)
_SLOW = tile(
    Words("Slow swap", f"95th percentile of the same, in {_OF}. *Time per phase* says where to cut.", "no swap"),
    Query(quantile(0.95, names.SWAP_DURATION, over=RANGE), "p95", now=True),
    "s",
)
_PER_SWAP = tile(
    Words(
        "Requests per swap",
        f"Requests that ended for each swap in {_OF}. Below 2 a swap serves one request: hold longer (`hold`,"
        " `unloadDelay`), or see *Capacity tuning*.",
        "no swap",
    ),
    Query(ratio(grown(names.REQUESTS, model="!_unknown"), grown(names.SWAPS)), "requests", now=True),
    limits=levels((2, "orange"), (5, "green"), base="red"),
    decimals=1,
)
_THRASH = tile(
    Words(
        "Back too soon",
        f"Share of the swaps in {_OF} that brought back a model evicted less than 60 s, or three of its loads, ago"
        " (`llmswap_swap_thrash_total`). Above 35 %, if it costs 10 % of a GPU, `LLMSwapThrashing` fires.",
        "no swap",
    ),
    Query(ratio(grown(names.SWAP_THRASH), grown(names.SWAPS)), "thrash", now=True),
    "percentunit",
    limits=levels((0.2, "orange"), (0.35, "red")),
    decimals=0,
)
_LOST = tile(
    Words(
        "GPU time lost",
        f"GPU-seconds in {_OF} in which a swap was on and nobody was served (`llmswap_gpu_phase_seconds_total`).",
        "not scraped",
    ),
    Query(grown(names.GPU_PHASE, phase="swapping"), "lost", now=True),
    "s",
    decimals=1,
)
_RUNNING = tile(
    Words(
        "Swap running for",
        "Age of the oldest swap that runs now (`llmswap_swap_in_progress_start_timestamp_seconds`); 0 is none. After"
        " 10 minutes `LLMSwapSwapStuck` fires.",
        "not scraped",
    ),
    Query(
        f"max((time() - {pick(names.SWAP_IN_PROGRESS_START)}) * on (job, instance) {pick(names.SWAP_IN_PROGRESS)})",
        "age",
        now=True,
    ),
    "s",
    limits=levels((60, "orange"), (600, "red"), base="text"),
    decimals=0,
)
_COUNTS = matrix(
    Words(
        "Who had to go for whom",
        f"Swaps begun in {_OF} (`llmswap_swap_transitions_total`): the row went for the column. Two dark cells that"
        " mirror each other are a pair that thrashes: let them live together (`groups`, `matrix`), or hold longer.",
        "No swap has begun in the time range.",
    ),
    grown(names.SWAP_TRANSITIONS, of="from_model to_model") + " > 0.5",
    "gone ↓  for →",
)
_PAIRS = matrix(
    Words(
        "GPU time lost, by pair",
        f"GPU-seconds lost in {_OF}, by who went for whom; the cells add up to *GPU time lost*. Each pair's part is"
        " reckoned from its swaps and the mean duration of swaps to the column's model.",
        "No swap has ended well in the time range.",
    ),
    pieces.pair_seconds() + " > 0",
    "gone ↓  for →",
    "s",
    decimals=0,
)
_CALLERS = rows(
    Words(
        "GPU time lost, by caller",
        f"Whose requests caused the swaps of {_OF} (`llmswap_swap_lost_gpu_seconds_total`): the mark of an API key,"
        " `_other` without one, `_none` where no request asked. Give callers keys to tell them apart; what need not"
        " swap sends `X-LLMSwap-Swap: never-swap`.",
        "No swap has begun in the time range.",
    ),
    {"caller_class": "Caller"},
    [
        Column("GPU time lost", grown(names.SWAP_LOST_BY_CALLER, of="caller_class"), "s", decimals=0, bar=True),
        Column("Swaps", grown(names.SWAPS_BY_CALLER, of="caller_class"), decimals=0, width=80),
    ],
    sort="GPU time lost",
)
_PHASES = curves(
    Words(
        "Time per phase of a swap",
        "Mean seconds of each phase per swap (`llmswap_swap_phase_duration_seconds`). `health_wait`: loading the"
        " model; `free_wait`: memory that is not free yet; `stop`: an engine that ends slowly (`cmdStop`,"
        " `unloadTimeout`); `drain`: long answers.",
        "No data because no swap has ended lately.",
    ),
    [
        Query(
            f"{rate(names.SWAP_PHASE, 'sum', 'phase')} / scalar({rate(names.SWAPS)} > 0) > 0",
            "{{phase}}",
        )
    ],
    "s",
    colours=SWAP_PHASES,
    stacked=True,
    bars=True,
    every="1m",
)
_DURATION = curves(
    Words(
        "Swap duration",
        "Median and 95th percentile by kind (`llmswap_swap_duration_seconds`), on a logarithmic axis; the dots are"
        " traces. A step up for the same model: the page cache is cold, or the disk is busy.",
        "No data because no swap has ended lately.",
    ),
    [
        Query(quantile(0.5, names.SWAP_DURATION, "kind"), "{{kind}} p50"),
        Query(quantile(0.95, names.SWAP_DURATION, "kind"), "{{kind}} p95", exemplar=True),
    ],
    "s",
    colours={
        "cold p50": "light-orange",
        "cold p95": STARTS["cold"],
        "wake1 p50": "super-light-blue",
        "wake1 p95": STARTS["wake1"],
        "wake2 p50": "semi-dark-blue",
        "wake2 p95": STARTS["wake2"],
    },
    log=True,
    every="1m",
)
_BY_MODEL = rows(
    Words(
        "Swaps by model",
        f"How long swaps to each model took on average in {_OF}, and how many there were"
        " (`llmswap_swap_duration_seconds`), with what the scheduler expects of the next"
        " (`llmswap_model_load_estimate_seconds`).",
        "No swap has ended well in the time range.",
    ),
    {"to_model": "Model", "kind": "Kind"},
    [
        Column("Mean", mean(names.SWAP_DURATION, "to_model kind"), "s", bar=True),
        Column("Swaps", grown(names.SWAP_DURATION, "count", "to_model kind") + " > 0.5", decimals=0, width=70),
        Column(
            "Expected",
            by(
                "to_model kind",
                relabelled(pick(names.MODEL_LOAD_ESTIMATE), "to_model", "model"),
                "max",
            ),
            "s",
            width=85,
        ),
    ],
    sort="Mean",
)
_RESIDENCY = curves(
    Words(
        "How long models stay",
        "Mean time from ready to the decision to stop or to sleep (`llmswap_residency_seconds`). Shorter than the swap"
        " that brought it: hold longer.",
        "No data because no model has left lately.",
    ),
    [Query(mean(names.RESIDENCY, "model", LATELY), "{{model}}")],
    "s",
    bars=True,
    every="5m",
)
_SERVED = curves(
    Words(
        "Requests per residency",
        "Mean requests that a model served before it went again (`llmswap_residency_requests`). 1 or 2: each swap pays"
        " for next to nothing.",
        "No data because no model has left lately.",
    ),
    [Query(mean(names.RESIDENCY_REQUESTS, "model", LATELY), "{{model}}")],
    bars=True,
    every="5m",
)
_BACK = curves(
    Words(
        "Back too soon, by model",
        "Swaps that brought back a model evicted a moment ago (`llmswap_swap_thrash_total`).",
        "No data because no swap has ended lately.",
    ),
    [Query(grown(names.SWAP_THRASH, of="to_model", over=LATELY) + " > 0", "{{to_model}}")],
    stacked=True,
    bars=True,
    every="1m",
)
_JOINED = heat_map(
    Words(
        "Requests that shared a swap",
        "How many requests waited for one swap (`llmswap_swap_joined_requests`). 0 and 1 only: nothing is gained by"
        " waiting; a longer `hold` for the others gathers more.",
        "No data because no swap has ended lately.",
    ),
    heat(names.SWAP_JOINED),
    "short",
    exemplars=False,
)
_OUTCOMES = curves(
    Words(
        "What became of swaps",
        "Swaps that ended, by outcome (`llmswap_swaps_total`). `timeout`: `healthCheckTimeout` is too short, or the"
        " load too long; `oom`: it does not fit beside what is there; `exit`: its log says why.",
        "No data because no swap has ended lately.",
    ),
    [Query(grown(names.SWAPS, of="outcome", over=LATELY) + " > 0", "{{outcome}}")],
    colours=SWAP_OUTCOMES,
    stacked=True,
    bars=True,
    every="1m",
)
_TRIGGERS = curves(
    Words(
        "What asked for swaps",
        "Swaps begun for a `request`, for `preload`, or by an operator (`admin`) (`llmswap_swap_triggers_total`).",
        "No data because no swap has begun lately.",
    ),
    [Query(grown(names.SWAP_TRIGGERS, of="reason", over=LATELY) + " > 0", "{{reason}}")],
    colours=dict(zip(names.TRIGGERS, ("orange", "blue", "purple"), strict=True)),
    stacked=True,
    bars=True,
    every="1m",
)
_PREFILL = curves(
    Words(
        "Prompts read anew after swaps",
        "Prompt tokens that the first ten answers of a residency computed, for want of a cache"
        " (`llmswap_prefill_after_swap_tokens_total`): what a swap costs beyond its wait. Sleeping loses it, too.",
        "No data because no engine says what came from its cache after a swap.",
    ),
    [Query(grown(names.PREFILL_TOKENS, of="model", over=LATELY) + " > 0", "{{model}}")],
    stacked=True,
    bars=True,
    every="1m",
)
_TRACES = traces(
    Words(
        "Traces of swaps",
        "The newest swaps, each with its phases and the requests that waited for it (Tempo).",
        "No trace because none was sent: telemetry.traces.endpoint, or OTEL_EXPORTER_OTLP_ENDPOINT.",
    ),
    '{ name = "llmswap.swap" } | select(span.llmswap.swap.from_model, span.llmswap.swap.to_model,'
    " span.llmswap.swap.kind, span.llmswap.swap.outcome, span.llmswap.swap.joined_requests)",
)

BOARD = Board(
    "llmswap-swaps",
    "Swaps",
    "What does swapping cost, who evicts whom, and what would make it cheaper?",
    [
        Row(
            "",
            [
                Line(
                    4,
                    [(3, panel) for panel in (_LOST, _COUNT, _PER_SWAP, _THRASH, _TYPICAL, _SLOW, _FAILED, _RUNNING)],
                ),
                Line(10, [(24, pieces.residency("Residency: who is up, who waits"))]),
            ],
        ),
        Row("Who evicts whom", [Line(9, [(8, _COUNTS), (8, _PAIRS), (8, _CALLERS)])]),
        Row("What a swap is made of", [Line(8, [(8, _PHASES), (8, _DURATION), (8, _BY_MODEL)])]),
        Row(
            "Does a swap pay",
            [
                Line(8, [(8, _RESIDENCY), (8, _SERVED), (8, _BACK)]),
                Line(8, [(6, _JOINED), (6, _OUTCOMES), (6, _TRIGGERS), (6, _PREFILL)]),
            ],
        ),
        Row("Traces", [Line(9, [(24, _TRACES)])]),
    ],
    swaps=True,
)
