"""Do users wait, for what, and is the objective met."""

from grafana.generate.boards import pieces
from grafana.generate.frame import Board, Line, Row
from grafana.generate.palette import BAD, BUSY, DECISIONS, LIMIT, WAIT_OUTCOMES
from grafana.generate.panels import Query, Words, curves, heat_map, levels, tile
from grafana.generate.promql import (
    OF_MODEL,
    RANGE,
    SLO_WAIT,
    SLO_WAIT_LE,
    by,
    grown,
    heat,
    lively,
    pick,
    quantile,
    rate,
    ratio,
)
from llmswap.telemetry import names

AT_ONCE_LE = "0.005"  # the least bucket of WAIT
_BURN = "job:llmswap_queue_wait_slo_errors_per_requests:ratio_rate"


def _met(over: str, le: str = SLO_WAIT_LE, /, **labels: str) -> str:
    """Give the share of requests that waited so long at most; who was refused did not wait, as in the rules."""
    waited = {"outcome": "!rejected", **labels}
    within = grown(names.QUEUE_WAIT, "bucket", over=over, le=le, **waited)
    return ratio(within, grown(names.QUEUE_WAIT, "count", over=over, **waited))


_SLO = tile(
    Words(
        "Within 10 s",
        "Share of requests in the time range (`llmswap_queue_wait_seconds`); the objective is 99 %. *Waiting, by"
        " cause* says what to change.",
        "no traffic",
    ),
    Query(_met(RANGE, model=OF_MODEL), "within 10 s", now=True),
    "percentunit",
    limits=levels((0.95, "orange"), (SLO_WAIT, "green"), base="red"),
    decimals=1,
)
_BUDGET = tile(
    Words(
        "Budget, 30 days",
        "What is left of the 1 % of requests that may wait longer than 10 s in 30 days, all models; below 0 it is"
        " overdrawn. Prometheus must keep 30 days.",
        "no traffic",
    ),
    Query(f"1 - (1 - {_met('30d')}) / {1 - SLO_WAIT:.2g}", "left", now=True),
    "percentunit",
    limits=levels((0, "orange"), (0.25, "green"), base="red"),
    decimals=0,
)
_NOW = tile(
    Words("Waiting", "Requests in the queue now (`llmswap_queue_depth`).", "not scraped"),
    Query(by("", pick(names.QUEUE_DEPTH, model=OF_MODEL)), "waiting"),
    limits=levels((1, "yellow"), (10, "orange"), (50, "red"), base="text"),
    spark=True,
    decimals=0,
)
_OLDEST_NOW = tile(
    Words(
        "Longest wait now",
        "Age of the oldest waiting request (`llmswap_queue_oldest_age_seconds`). Above 120 s `LLMSwapQueueStarvation`"
        " fires; `fair` bounds it by `maxWait`.",
        "not scraped",
    ),
    Query(by("", pick(names.QUEUE_OLDEST_AGE, model=OF_MODEL), "max"), "oldest"),
    "s",
    limits=levels((30, "yellow"), (60, "orange"), (120, "red"), base="text"),
    spark=True,
    decimals=0,
)
_P95 = tile(
    Words(
        "Wait, 95 of 100",
        "95th percentile of the wait in the time range, of all that waited or were served at once.",
        "no traffic",
    ),
    Query(quantile(0.95, names.QUEUE_WAIT, over=RANGE, model=OF_MODEL), "p95", now=True),
    "s",
)
_LEFT = tile(
    Words(
        "Gave up or refused",
        "Requests in the time range that were never served: hung up, ran into `queueTimeout`, or were refused.",
        "not scraped",
    ),
    Query(grown(names.QUEUE_WAIT, "count", model=OF_MODEL, outcome="!admitted"), "lost", now=True),
    limits=levels((1, "orange"), (50, "red"), base="text"),
    decimals=0,
)
_AT_ONCE = tile(
    Words(
        "Served at once",
        "Share of requests in the time range that waited 5 ms at most (`llmswap_queue_wait_seconds`): the model was up"
        " and had a place.",
        "no traffic",
    ),
    Query(_met(RANGE, AT_ONCE_LE, model=OF_MODEL), "at once", now=True),
    "percentunit",
    decimals=0,
)
_FULLEST = tile(
    Words(
        "Fullest queue",
        "The longest queue as a share of what it may hold (`llmswap_queue_depth`, `llmswap_queue_limit`); full, it"
        " refuses. From 90 % on `LLMSwapQueueNearlyFull` fires.",
        "not scraped",
    ),
    Query(
        f"max({pick(names.QUEUE_DEPTH, model=OF_MODEL)} / ({pick(names.QUEUE_LIMIT, model=OF_MODEL)} > 0))",
        "of its limit",
    ),
    "percentunit",
    limits=levels((0.5, "orange"), (0.9, "red"), base="text"),
    spark=True,
    decimals=0,
)
_DEPTH = curves(
    Words(
        "Waiting, by model",
        "Requests in the queue (`llmswap_queue_depth`). A model whose band only grows asks for more than the box can"
        " give.",
        "No data because no llmswap is scraped.",
    ),
    [Query(by("model", pick(names.QUEUE_DEPTH, model=OF_MODEL)), "{{model}}")],
    stacked=True,
    legend="right",
)
_OLDEST = curves(
    Words(
        "Longest wait, by model",
        "Age of the oldest waiting request (`llmswap_queue_oldest_age_seconds`). The line at 120 s is where"
        " `LLMSwapQueueStarvation` fires. One model that climbs alone starves: give it `priority`, or a shorter"
        " `maxWait`.",
        "No data because no llmswap is scraped.",
    ),
    [Query(by("model", pick(names.QUEUE_OLDEST_AGE, model=OF_MODEL), "max"), "{{model}}")],
    "s",
    legend="right",
    limit=(120, LIMIT),
)
_WAITS = heat_map(
    Words(
        "How long requests waited",
        "Arrival to dispatch, or to giving up (`llmswap_queue_wait_seconds`); the dots are traces. The lowest band was"
        " served at once.",
        "No data because no request came lately.",
    ),
    heat(names.QUEUE_WAIT, model=OF_MODEL),
)
_BURNS = curves(
    Words(
        "Burn rate",
        "How fast the budget of late requests burns: 1 uses up 30 days' in 30 days. Both windows above 14.4 page"
        " (`LLMSwapQueueWaitBudgetBurnFast`).",
        "No data because no request came lately, or Prometheus lacks the recording rules of prometheus/rules.",
    ),
    [
        Query(f'max({_BURN}5m{{job=~"$job"}}) / {1 - SLO_WAIT:.2g}', "5 minutes"),
        Query(f'max({_BURN}1h{{job=~"$job"}}) / {1 - SLO_WAIT:.2g}', "1 hour"),
    ],
    colours={"5 minutes": BUSY, "1 hour": BAD},
    limit=(14.4, LIMIT),
)
_ENDS = curves(
    Words(
        "Never served, by model",
        "Requests that gave up or were turned away (`llmswap_queue_wait_seconds_count`): `disconnect`: the client hung"
        " up; `timeout`: `queueTimeout`; `rejected`: see the next panel.",
        "Nobody gave up and nobody was refused lately.",
    ),
    [
        Query(
            lively(names.QUEUE_WAIT, "count", "model outcome", model=OF_MODEL, outcome="!admitted"),
            "{{model}} {{outcome}}",
        )
    ],
    "reqps",
    stacked=True,
)
_REFUSED = curves(
    Words(
        "Refusals, by reason",
        "What the scheduler refused (`llmswap_rejections_total`). `over_limit`: `concurrencyLimit`; `queue_full`:"
        " `queueLimit`; `would_swap`: asked not to swap, and nobody could serve; docs/scheduling.md has all.",
        "Nothing was refused lately.",
    ),
    [Query(lively(names.REJECTIONS, of="reason", model=OF_MODEL), "{{reason}}")],
    "reqps",
    stacked=True,
)
_DECIDED = curves(
    Words(
        "What the scheduler decides",
        "Decisions per second (`llmswap_scheduler_decisions_total`): `serve` at once, `join_swap` with others,"
        " `start_swap`, `hold_policy`: a swap put off, `reject`.",
        "No data because no llmswap is scraped.",
    ),
    [Query(rate(names.DECISIONS_MADE, of="decision"), "{{decision}}")],
    "ops",
    colours=DECISIONS,
    stacked=True,
)
_OUTCOMES = curves(
    Words(
        "Waits that ended, by outcome",
        "Requests that left the queue, by how (`llmswap_queue_wait_seconds_count`); `admitted` was served.",
        "No data because no request came lately.",
    ),
    [Query(lively(names.QUEUE_WAIT, "count", "outcome", model=OF_MODEL), "{{outcome}}")],
    "reqps",
    colours=WAIT_OUTCOMES,
    stacked=True,
)

BOARD = Board(
    "llmswap-queue",
    "Queue and SLO",
    "Do users wait, for what, and is the objective met?",
    [
        Row(
            "",
            [
                Line(4, [(3, panel) for panel in (_SLO, _BUDGET, _AT_ONCE, _P95, _NOW, _OLDEST_NOW, _FULLEST, _LEFT)]),
                Line(9, [(12, pieces.wait_causes("Waiting, by cause", model=OF_MODEL)), (12, _WAITS)]),
            ],
        ),
        Row("Who waits", [Line(8, [(12, _DEPTH), (12, _OLDEST)])]),
        Row("The objective", [Line(8, [(12, _BURNS), (12, _OUTCOMES)])]),
        Row("Who is not served", [Line(8, [(8, _ENDS), (8, _REFUSED), (8, _DECIDED)])]),
    ],
    model="all",
    swaps=True,
)
