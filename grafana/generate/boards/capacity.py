"""What one more resident slot, a longer hold, or sleep instead of stop would save.

Estimates out of what was recorded: swaps, their phases and durations, and what the scheduler expects of the next ones.
None of them knows how callers would behave then; `llmswap simulate` does.
"""

from grafana_foundation_sdk.builders import bargauge, text
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import text as t

from grafana.generate.boards import pieces
from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import BUSY, GPU_PHASES, RULE, WAIT_CAUSES
from grafana.generate.panels import Query, Words, bars, curves, levels, tile
from grafana.generate.promql import by, grown, mean, pick, rate, relabelled
from grafana.generate.tables import Column, matrix, rows
from llmswap.telemetry import names

_WAKES = "~wake1|wake2"
_NO_SWAPS = "No swap has ended well in the time range."
_READY = by("model", pick(names.MODEL_LEARNED_GPU, state="ready"))


def _together() -> str:
    """Give the GPU-seconds that two models took from each other, for each pair, both ways round."""
    pair = pieces.pair_seconds()
    turned = relabelled(relabelled(f"({pair})", "third", "from_model"), "from_model", "to_model")
    other = by("from_model to_model", relabelled(turned, "to_model", "third"))
    return f"(({pair}) + on (from_model, to_model) {other})"


def _held() -> str:
    """Give the GPU-seconds of swaps that brought back, by model, who had gone a moment ago."""
    back = grown(names.SWAP_THRASH, of="to_model")
    return f"{back} * on (to_model) ({mean(names.SWAP_DURATION, 'to_model')})"


def _woken() -> str:
    """Give what a wake takes: the model's own, else what wakes take on average here."""
    own = mean(names.SWAP_DURATION, "to_model", kind=_WAKES)
    cold = mean(names.SWAP_DURATION, "to_model", kind="cold")
    return f"(({own}) or on (to_model) (0 * ({cold}) + scalar({mean(names.SWAP_DURATION, kind=_WAKES)})))"


def _slept() -> str:
    """Give the GPU-seconds that wakes in the place of cold starts would have saved, by model."""
    cold = mean(names.SWAP_DURATION, "to_model", kind="cold")
    starts = grown(names.SWAP_DURATION, "count", "to_model", kind="cold")
    return f"{starts} * on (to_model) clamp_min(({cold}) - on (to_model) {_woken()}, 0) >= 0"


_TILES = (
    pieces.lost_share(
        Words(
            "GPU time lost",
            "Share of the GPUs' time in the time range in which a swap was on and nobody was served: what is to be"
            " won.",
            "not scraped",
        ),
    ),
    tile(
        Words("... in seconds", "The same in GPU-seconds (`llmswap_gpu_phase_seconds_total`).", "not scraped"),
        Query(grown(names.GPU_PHASE, phase="swapping"), "lost", now=True),
        "s",
    ),
    tile(
        Words(
            "Two together would save",
            "GPU-seconds of the time range that the pair took which evicts each other most: both resident, these swaps"
            " would not have been. *Which two* says who.",
            "no such pair",
        ),
        Query(f"max({_together()})", "saved", now=True),
        "s",
    ),
    tile(
        Words(
            "Longer holds would save",
            "At most: the GPU-seconds of swaps that brought a model back soon after it was evicted. Others would have"
            " waited for the holds meanwhile: *Hold longer*.",
            "no swap",
        ),
        Query(f"sum({_held()})", "saved", now=True),
        "s",
    ),
    tile(
        Words(
            "Sleeping would save",
            "GPU-seconds of the time range, had every cold start been a wake. Needs an engine that can sleep, and host"
            " memory: *Sleep instead of stop*.",
            "no wake yet",
        ),
        Query(f"sum({_slept()})", "saved", now=True),
        "s",
    ),
    tile(
        Words(
            "Users waited for swaps",
            "Request-seconds of the time range (`llmswap_request_wait_seconds_total`, `swap`).",
            "not scraped",
        ),
        Query(grown(names.WAIT_SECONDS, cause="swap"), "waited", now=True),
        "s",
    ),
)
_TIME = bars(
    Words(
        "What the GPUs' time went into",
        "GPU-seconds of the time range (`llmswap_gpu_phase_seconds_total`). Much *idle* or *empty*: the box is large"
        " enough, and swaps are the only problem. Hardly any: it is full, and only less work or more GPU helps.",
        "No data because no llmswap is scraped.",
    ),
    Query(grown(names.GPU_PHASE, of="phase"), "{{phase}}", now=True),
    "s",
    colours=GPU_PHASES,
)
_KNOBS = {
    "swap": "swap → slots, hold, sleep",
    "drain": "drain → shorter answers",
    "concurrency": "concurrency → concurrencyLimit",
    "policy": "policy → hold, maxWait",
}


def _waited() -> bargauge.Panel:
    panel = bars(
        Words(
            "What requests waited for, and the knob",
            "Request-seconds of the time range (`llmswap_request_wait_seconds_total`), with what changes them"
            " (docs/tuning.md).",
            "No data because no llmswap is scraped.",
        ),
        Query(grown(names.WAIT_SECONDS, of="cause"), "{{cause}}", now=True),
        "s",
    )
    for cause, knob in _KNOBS.items():
        colour = {"mode": "fixed", "fixedColor": WAIT_CAUSES[cause]}
        shown = [d.DynamicConfigValue("color", colour), d.DynamicConfigValue("displayName", knob)]
        panel.override_by_name(cause, shown)
    return panel


_PROOF = (
    text.Panel()
    .title("Before you change anything")
    .description("How to try a change on recorded traffic. No metric.")
    .mode(t.TextMode.MARKDOWN)
    .content(
        "These are **estimates** from what was recorded in the time range; take hours, not minutes.\n\n"
        "Record your traffic (`journal: {path: …}`), then try the change in virtual time:\n\n"
        "```\nllmswap simulate journal.jsonl --sweep hold=0,5,10,20,auto maxWait=60,120,300\n"
        "llmswap simulate journal.jsonl --config changed.yaml\n```\n\n"
        "`docs/tuning.md` has three worked examples."
    )
)
_WHICH_TWO = matrix(
    Words(
        "Which two should live together",
        "GPU-seconds that each pair took from each other in the time range, both ways: what is saved if both are"
        " resident (`groups` with `swap: false`, or a `matrix` set). The table beside it says whether they fit.",
        "No pair has evicted each other in the time range.",
    ),
    f"{_together()} > 0",
    "with ↓→",
    "s",
)
_FOOTPRINTS = rows(
    Words(
        "Do they fit",
        "Most GPU memory seen when ready, its share of all there is, and the room that is left now"
        " (`llmswap_model_learned_gpu_bytes`, `llmswap_model_fit_headroom_bytes`). Shares of two that add up to less"
        " than 95 % fit; else a smaller context or quantization of one may make room.",
        "No data because no GPU can be seen, or no model has been up.",
    ),
    {"model": "Model"},
    [
        Column("GPU, ready", _READY, "bytes", decimals=1),
        Column(
            "Of all",
            f"{_READY} / scalar({by('', pick(names.GPU_MEMORY_TOTAL))})",
            "percentunit",
            decimals=0,
            bar=True,
        ),
        Column("Room left", by("model", pick(names.MODEL_FIT_HEADROOM), "min"), "bytes", decimals=1),
    ],
    sort="GPU, ready",
)
_HOLD = rows(
    Words(
        "Hold longer: who comes back too soon",
        "Per model in the time range: swaps that brought it back soon after it was evicted, their GPU-seconds (the"
        " most that a longer `hold` or `unloadDelay` of it saves), how long and for how many requests it stays"
        " (`llmswap_swap_thrash_total`, `llmswap_residency_*`).",
        _NO_SWAPS,
    ),
    {"to_model": "Model"},
    [
        Column("Saved at most", _held(), "s", bar=True),
        Column("Back too soon", grown(names.SWAP_THRASH, of="to_model"), decimals=0),
        Column("Of swaps", grown(names.SWAPS, of="to_model") + " > 0.5", decimals=0),
        Column("Stays for", by("to_model", relabelled(mean(names.RESIDENCY, "model"), "to_model", "model")), "s"),
        Column(
            "Requests each",
            by("to_model", relabelled(mean(names.RESIDENCY_REQUESTS, "model"), "to_model", "model")),
            decimals=1,
            limits=((0, "dark-orange"), (2, "transparent")),
        ),
    ],
    sort="Saved at most",
)
_PRICE = curves(
    Words(
        "The price of holding",
        "Requests that wait, on average, for a hold or another's turn (`policy`) and for swaps"
        " (`llmswap_request_wait_seconds_total`). As long as purple is far below orange, holding longer costs less"
        " than it saves.",
        "No data because no llmswap is scraped.",
    ),
    [
        Query(rate(names.WAIT_SECONDS, cause="policy"), "for holds and turns"),
        Query(rate(names.WAIT_SECONDS, cause="swap"), "for swaps"),
    ],
    colours={"for holds and turns": RULE, "for swaps": BUSY},
    every="1m",
)
_SLEEP = rows(
    Words(
        "Sleep instead of stop: whose cold starts cost most",
        "Per model in the time range: cold starts, what one takes, what a wake takes (its own; else the mean of wakes"
        " here), and the GPU-seconds that sleeping would have saved. Asleep it keeps about *Host, asleep*; a model"
        " that has never slept keeps about its GPU memory at level 1, next to nothing at level 2.",
        "No model was started cold in the time range.",
    ),
    {"to_model": "Model"},
    [
        Column("Would save", _slept(), "s", bar=True),
        Column("Cold starts", grown(names.SWAP_DURATION, "count", "to_model", kind="cold") + " > 0.5", decimals=0),
        Column("Cold start", mean(names.SWAP_DURATION, "to_model", kind="cold"), "s"),
        Column("Wake", f"{_woken()} >= 0", "s"),
        Column(
            "Host, asleep",
            by("to_model", relabelled(pick(names.MODEL_LEARNED_HOST, state="asleep"), "to_model", "model"), "max"),
            "bytes",
            decimals=1,
        ),
        Column(
            "GPU, ready",
            by("to_model", relabelled(pick(names.MODEL_LEARNED_GPU, state="ready"), "to_model", "model"), "sum"),
            "bytes",
            decimals=1,
        ),
    ],
    sort="Would save",
)
_PHASES = matrix(
    Words(
        "Where swaps spend their time",
        "Mean seconds of each phase in the time range, by kind of swap (`llmswap_swap_phase_duration_seconds`). A cold"
        " `health_wait` is the load, which sleep avoids; `stop` and `free_wait` are the other's way out.",
        _NO_SWAPS,
    ),
    mean(names.SWAP_PHASE, "phase kind") + " > 0",
    "phase ↓  kind →",
    "s",
    down="phase",
    across="kind",
    decimals=1,
)
_ESTIMATES = bars(
    Words(
        "What the next swap should take",
        "The scheduler's estimates by model and kind (`llmswap_model_load_estimate_seconds`): it holds by them.",
        "No model has come up yet.",
    ),
    Query(by("model kind", pick(names.MODEL_LOAD_ESTIMATE), "max"), "{{model}}, {{kind}}", now=True),
    "s",
    limits=levels((10, "light-orange"), (60, "orange"), base="blue"),
)

BOARD = Board(
    "llmswap-capacity",
    "Capacity tuning",
    "What would one more resident slot, a longer hold, or sleep instead of stop save?",
    [
        Row(
            "",
            [
                Line(4, [(4, panel) for panel in _TILES]),
                Line(7, [(8, _TIME), (8, _waited()), (8, _PROOF)]),
            ],
        ),
        Row("One more resident slot", [Line(8, [(12, _WHICH_TWO), (12, _FOOTPRINTS)])]),
        Row("Hold longer", [Line(8, [(15, _HOLD), (9, _PRICE)])]),
        Row("Sleep instead of stop", [Line(8, [(15, _SLEEP), (9, _PHASES)]), Line(7, [(24, _ESTIMATES)])]),
    ],
    since="now-6h",
    refresh="1m",
)
