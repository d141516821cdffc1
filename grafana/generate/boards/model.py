"""One model: its life, speed, errors and memory. Rows of tables lead here."""

from grafana.generate.boards import pieces
from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import EXITS, MEMORY_KINDS, PROBES, STARTS, STATES, TOKENS
from grafana.generate.panels import Query, Words, bars, curves, levels, state_names, tile
from grafana.generate.promql import LATELY, OF_MODEL, by, grown, lively, mean, pick, quantile, rate
from grafana.generate.tables import Column, rows
from llmswap.telemetry import names

_MINE = {"model": OF_MODEL}
_TO_ME = {"to_model": OF_MODEL}
_ENGINE = 'model=~"$model"'

_STATE = tile(
    Words("State", "Its state now (`llmswap_model_state_code`).", "not configured"),
    Query(by("model", pick(names.MODEL_STATE_CODE, **_MINE), "max"), "{{model}}", now=True),
    "none",
).mappings(state_names())
_TILES = (
    (4, _STATE),
    (
        4,
        tile(
            Words(
                "Last used",
                "Time since the last request was sent to it (`llmswap_model_last_used_timestamp_seconds`).",
                "never",
            ),
            Query(f"time() - max({pick(names.MODEL_LAST_USED, **_MINE)} > 0)", "ago", now=True),
            "s",
            decimals=0,
        ),
    ),
    (
        4,
        tile(
            Words("Requests", "Finished in the time range (`llmswap_requests_total`).", "not configured"),
            Query(grown(names.REQUESTS, **_MINE), "requests", now=True),
            decimals=0,
        ),
    ),
    (
        4,
        tile(
            Words("Swaps to it", "In the time range (`llmswap_swaps_total`).", "not configured"),
            Query(grown(names.SWAPS, **_TO_ME), "swaps", now=True),
            decimals=0,
        ),
    ),
    (
        4,
        tile(
            Words(
                "Next start takes",
                "What the scheduler expects, the dearest way (`llmswap_model_load_estimate_seconds`).",
                "never started",
            ),
            Query(by("", pick(names.MODEL_LOAD_ESTIMATE, **_MINE), "max"), "estimate", now=True),
            "s",
        ),
    ),
    (
        4,
        tile(
            Words(
                "Ended unasked",
                "Ends that nobody asked for in the time range (`llmswap_model_exits_total`): its log says why.",
                "not configured",
            ),
            Query(grown(names.MODEL_EXITS, reason="!requested", **_MINE), "exits", now=True),
            limits=levels((0.5, "orange"), (2.5, "red")),
            decimals=0,
        ),
    ),
)
_FACTS = rows(
    Words(
        "What it is",
        "As far as its command tells (`llmswap_model_info`), with the processes that it has now, and whether its GPU"
        " memory is measured or, where the driver does not tell whose it is, estimated"
        " (`llmswap_model_gpu_memory_estimated`).",
        "No such model is configured.",
    ),
    {
        "model": "Model",
        "backend": "Engine",
        "quantization": "Quantization",
        "context": "Context",
        "sleep_level": "Sleep level",
    },
    [
        Column(
            "Processes",
            by(
                "model backend quantization context sleep_level",
                f"{pick(names.MODEL_INFO, **_MINE)} * on (job, instance, model) group_left ()"
                f" {pick(names.MODEL_PROCESSES, **_MINE)}",
            ),
            decimals=0,
        ),
        Column(
            "GPU memory is",
            by(
                "model backend quantization context sleep_level",
                f"{pick(names.MODEL_INFO, **_MINE)} * on (job, instance, model) group_left ()"
                f" {pick(names.MODEL_GPU_ESTIMATED, **_MINE)}",
                "max",
            ),
            "none",
            properties={
                "mappings": [
                    {
                        "type": "value",
                        "options": {"0": {"text": "measured", "index": 0}, "1": {"text": "estimated", "index": 1}},
                    }
                ]
            },
        ),
    ],
    links=False,
)
_STATE_TIME = bars(
    Words(
        "Time in each state",
        "In the time range (`llmswap_model_state_seconds_total`); exact, however seldom it is scraped.",
        "No such model is configured.",
    ),
    Query(grown(names.MODEL_STATE_SECONDS, of="state", **_MINE) + " > 0", "{{state}}", now=True),
    "s",
    colours=STATES,
)
_FIRST = pieces.first_token(
    Words(
        "First token, by how it came up",
        "95th percentile (`llmswap_time_to_first_token_seconds`, `start`); the dots are traces.",
        "No data because no stream had content lately.",
    ),
    **_MINE,
)
_PER_TOKEN = curves(
    Words(
        "Time per output token",
        "Median and 95th percentile (`llmswap_time_per_output_token_seconds`).",
        "No data because no stream has said its tokens lately.",
    ),
    [
        Query(quantile(0.5, names.TIME_PER_OUTPUT_TOKEN, "model", **_MINE), "{{model}} p50"),
        Query(quantile(0.95, names.TIME_PER_OUTPUT_TOKEN, "model", **_MINE), "{{model}} p95"),
    ],
    "s",
    every="1m",
)
_TOKENS = curves(
    Words(
        "Tokens per second",
        "As the engine counts them (`llmswap_tokens_total`); `input` holds `cached_input`, `output` holds `reasoning`.",
        "No data because no answer has said its tokens lately.",
    ),
    [Query(lively(names.TOKENS, of="token_type", **_MINE), "{{token_type}}")],
    colours=TOKENS,
)
_SWAP_TIME = curves(
    Words(
        "Swaps to it, and what was expected",
        "Mean duration by kind (`llmswap_swap_duration_seconds`), and the scheduler's estimate"
        " (`llmswap_model_load_estimate_seconds`). Twice as long as the day before: disk or page cache"
        " (`LLMSwapSwapSlow`).",
        "No data because it was not started yet.",
    ),
    [
        Query(mean(names.SWAP_DURATION, "kind", LATELY, **_TO_ME), "{{kind}}"),
        Query(by("kind", pick(names.MODEL_LOAD_ESTIMATE, **_MINE), "max"), "{{kind}} expected"),
    ],
    "s",
    colours={**STARTS, **{f"{kind} expected": "#6e7681" for kind in names.SWAP_KINDS}},
    every="1m",
)
_EVICTED_FOR = bars(
    Words(
        "Who it had to go for",
        "Evictions of this model in the time range, by who came (`llmswap_swap_transitions_total`).",
        "It did not have to go in the time range.",
    ),
    Query(grown(names.SWAP_TRANSITIONS, of="to_model", from_model=OF_MODEL) + " > 0.5", "{{to_model}}", now=True),
    decimals=0,
)
_EVICTS = bars(
    Words(
        "Who had to go for it",
        "Swaps to this model in the time range, by who went (`llmswap_swap_transitions_total`); `_none`: nobody.",
        "No swap to it has begun in the time range.",
    ),
    Query(grown(names.SWAP_TRANSITIONS, of="from_model", **_TO_ME) + " > 0.5", "{{from_model}}", now=True),
    decimals=0,
)
_ERRORS = pieces.engine_errors(
    Words(
        "Trouble with its engine",
        "What went wrong between llmswap and it (`llmswap_upstream_errors_total`); the log has each.",
        "No trouble lately.",
    ),
    **_MINE,
)
_ENDS = curves(
    Words(
        "Ends of its process",
        "`llmswap_model_exits_total`: `requested` is normal; `crash`, `oom_killed`, `health`, `start_failed` are not.",
        "It has not ended lately.",
    ),
    [
        Query(grown(names.MODEL_EXITS, of="reason", over=LATELY, **_MINE) + " > 0", "{{reason}}"),
    ],
    colours=EXITS,
    stacked=True,
    bars=True,
    every="1m",
)
_PROBES = curves(
    Words(
        "Probes",
        "How often it was asked whether it is up, and was (`ok`) or was not yet (`fail`)"
        " (`llmswap_upstream_health_checks_total`): a long start is many of these.",
        "It has not come up lately.",
    ),
    [Query(grown(names.HEALTH_CHECKS, of="result", over=LATELY, **_MINE) + " > 0", "{{result}}")],
    colours=PROBES,
    stacked=True,
    bars=True,
    every="1m",
)
_GPU = curves(
    Words(
        "GPU memory",
        "Of its processes (`llmswap_model_gpu_memory_bytes`), and the most that was seen by state"
        " (`llmswap_model_learned_gpu_bytes`).",
        "No data because no GPU can be seen, or it is not up.",
    ),
    [
        Query(by("gpu", pick(names.MODEL_GPU_MEMORY, **_MINE)), "GPU {{gpu}}"),
        Query(by("state", pick(names.MODEL_LEARNED_GPU, **_MINE)), "most when {{state}}"),
    ],
    "bytes",
    colours={"most when ready": STATES["ready"], "most when asleep": STATES["asleep"]},
)
_HOST = curves(
    Words(
        "Host memory",
        "Of its processes (`llmswap_model_host_memory_bytes`). `anon` and `shmem` are held, also asleep; `file` can be"
        " dropped.",
        "No data because it has no process.",
    ),
    [Query(by("kind", pick(names.MODEL_HOST_MEMORY, **_MINE)), "{{kind}}")],
    "bytes",
    colours=MEMORY_KINDS,
    stacked=True,
)
_CPU = curves(
    Words(
        "CPU of its processes",
        "Cores in use (`llmswap_model_cpu_seconds_total`). One core at 100 % while tokens come slowly: the engine is"
        " bound by it.",
        "No data because no llmswap is scraped.",
    ),
    [Query(rate(names.MODEL_CPU, of="model", **_MINE), "{{model}}")],
    "percentunit",
)


def _engine(title: str, about: str, queries: list[Query], unit: str = "short") -> object:
    empty = "No data because no such engine is up, or the job llmswap-upstream is not scraped (docs/prometheus.md)."
    return curves(Words(title, about, empty), queries, unit)


_ENGINES = Row(
    "Inside the engine (vLLM, llama.cpp: their own metrics, through /sd/prometheus)",
    [
        Line(
            8,
            [
                (
                    8,
                    _engine(
                        "vLLM: running and waiting",
                        "`vllm:num_requests_running` and `_waiting`. Waiting here, not in llmswap: raise its batch"
                        " limits.",
                        [
                            Query(f"sum by (model) (vllm:num_requests_running{{{_ENGINE}}})", "{{model}} running"),
                            Query(f"sum by (model) (vllm:num_requests_waiting{{{_ENGINE}}})", "{{model}} waiting"),
                        ],
                    ),
                ),
                (
                    8,
                    _engine(
                        "vLLM: KV cache",
                        "Share in use (`vllm:kv_cache_usage_perc`). Full: it preempts; lower `concurrencyLimit`.",
                        [Query(f"max by (model) (vllm:kv_cache_usage_perc{{{_ENGINE}}})", "{{model}}")],
                        "percentunit",
                    ),
                ),
                (
                    8,
                    _engine(
                        "llama.cpp: processing and deferred",
                        "`llamacpp:requests_processing` and `_deferred`. Deferred: fewer slots (`-np`) than"
                        " `concurrencyLimit`.",
                        [
                            Query(
                                f"sum by (model) (llamacpp:requests_processing{{{_ENGINE}}})", "{{model}} processing"
                            ),
                            Query(f"sum by (model) (llamacpp:requests_deferred{{{_ENGINE}}})", "{{model}} deferred"),
                        ],
                    ),
                ),
            ],
        )
    ],
    collapsed=True,
)

BOARD = Board(
    "llmswap-model",
    "Model",
    "One model: what is it doing, how fast is it, what does bringing it up cost?",
    [
        Row(
            "",
            [
                Line(4, _TILES),
                Line(7, [(16, pieces.residency("Its life", **_MINE)), (8, _STATE_TIME)]),
            ],
        ),
        Row("How fast it is", [Line(8, [(8, _FIRST), (8, _PER_TOKEN), (8, _TOKENS)])]),
        Row(
            "What it is asked",
            [
                Line(
                    8,
                    [
                        (8, pieces.requests_by_outcome(**_MINE)),
                        (8, pieces.wait_causes("Waiting, by cause", **_MINE)),
                        (8, _ERRORS),
                    ],
                )
            ],
        ),
        Row("Swaps", [Line(8, [(8, _SWAP_TIME), (4, _EVICTS), (4, _EVICTED_FOR), (4, _ENDS), (4, _PROBES)])]),
        Row("What it holds", [Line(8, [(8, _GPU), (8, _HOST), (8, _CPU)]), Line(4, [(24, _FACTS)])]),
        _ENGINES,
    ],
    model="one",
    swaps=True,
)
