"""Panels that several boards show, and queries that several panels ask."""

from grafana_foundation_sdk.builders import stat, statetimeline, timeseries

from grafana.generate.palette import GPU_PHASES, OUTCOMES, STARTS, WAIT_CAUSES
from grafana.generate.panels import Query, Words, curves, lanes, levels, state_names, tile
from grafana.generate.promql import (
    LATELY,
    by,
    grown,
    lively,
    mean,
    pick,
    quantile,
    rate,
    ratio,
    relabelled,
    swapping_ratio,
)
from llmswap.telemetry import names

SERVED_STEPS = ((1, "light-blue"), (4, "blue"), (16, "dark-blue"))
WAITING_STEPS = ((1, "light-yellow"), (4, "yellow"), (16, "orange"), (64, "red"))


def residency(title: str, **labels: str) -> statetimeline.Panel:
    """Show who is up when, and in two lanes below how many are served and wait."""
    return lanes(
        Words(
            title,
            "A lane per model: its state (`llmswap_model_state_code`), seen at each scrape, so a shorter state may be"
            " missing. Below: requests in flight and waiting. Green lanes that take turns while the last lane stays"
            " yellow are thrashing: see *Swaps*.",
            "No data because no llmswap is scraped: look at Prometheus' targets.",
        ),
        [
            Query(by("model", pick(names.MODEL_STATE_CODE, **labels), "max"), "{{model}}"),
            Query(by("", pick(names.IN_FLIGHT, **labels)), "· served"),
            Query(by("", pick(names.QUEUE_DEPTH, **labels)), "· waiting"),
        ],
        mappings=state_names(),
        counts={"B": SERVED_STEPS, "C": WAITING_STEPS},
    )


def requests_by_outcome(**labels: str) -> timeseries.Panel:
    """Show how requests ended."""
    return curves(
        Words(
            "Requests by outcome",
            "Finished requests (`llmswap_requests_total`). Orange and red are on our side: `queue_timeout` waited too"
            " long, `swap_failed` had no model, `upstream_error` had a bad answer; the log has each with its reason.",
            "No data because no request has ended lately.",
        ),
        [Query(lively(names.REQUESTS, of="outcome", **labels), "{{outcome}}")],
        "reqps",
        colours=OUTCOMES,
        stacked=True,
    )


def wait_causes(title: str, **labels: str) -> timeseries.Panel:
    """Show what requests wait for."""
    return curves(
        Words(
            title,
            "Requests that wait, on average, by what they wait for (`llmswap_request_wait_seconds_total`): `swap`: a"
            " model on its way in; `drain`: somebody who is still served; `policy`: another's turn, or a hold;"
            " `concurrency`: the model's own limit (`concurrencyLimit`).",
            "No data because no llmswap is scraped.",
        ),
        [Query(rate(names.WAIT_SECONDS, of="cause", **labels), "{{cause}}")],
        colours=WAIT_CAUSES,
        stacked=True,
    )


def first_token(words: Words, **labels: str) -> timeseries.Panel:
    """Show how long streams took to their first token, by how their model came up."""
    return curves(
        words,
        [Query(quantile(0.95, names.TIME_TO_FIRST_TOKEN, "start", **labels), "{{start}}", exemplar=True)],
        "s",
        colours=STARTS,
        log=True,
        every="1m",
    )


def engine_errors(words: Words, **labels: str) -> timeseries.Panel:
    """Show what went wrong between llmswap and engines."""
    return curves(
        words,
        [Query(lively(names.UPSTREAM_ERRORS, of="error_type", **labels), "{{error_type}}")],
        "ops",
        stacked=True,
        bars=True,
    )


def lost_share(words: Words) -> stat.Panel:
    """Show the share of the GPUs' time that swaps took."""
    return tile(
        words,
        Query(swapping_ratio(), "lost", now=True),
        "percentunit",
        limits=levels((0.1, "orange"), (0.3, "red")),
        decimals=1,
    )


def gpu_time() -> timeseries.Panel:
    """Show what the GPUs' time goes into."""
    return curves(
        Words(
            "Where GPU time goes",
            "Share of time in each phase (`llmswap_gpu_phase_seconds_total`), all GPUs together. Orange is lost: a"
            " swap was on and nobody was served. Blue: a model is up and nobody asks. Much orange: see *Swaps*.",
            "No data because no llmswap is scraped.",
        ),
        [Query(rate(names.GPU_PHASE, of="phase"), "{{phase}}")],
        "percentunit",
        colours=GPU_PHASES,
        percent=True,
    )


def pair_seconds(over: str = "$__range") -> str:
    """Give the GPU-seconds lost to swaps, by who had to go for whom.

    Swaps of a pair take as long as those to its second half do on average; what was lost in all is divided by that.
    """
    lasted = (
        f"{grown(names.SWAP_TRANSITIONS, of='from_model to_model', over=over)} * on (to_model) group_left ()"
        f" ({mean(names.SWAP_DURATION, 'to_model', over)})"
    )
    lost = grown(names.GPU_PHASE, over=over, phase="swapping")
    return f"({lasted}) / scalar(sum({lasted}) > 0) * scalar({lost})"


def per_model(vector: str) -> str:
    """Take what is told by the model that a swap brings up for that model's own."""
    return by("model", relabelled(vector, "model", "to_model"))


def hit_ratio(over: str = LATELY, of: str = "", **labels: str) -> str:
    """Give the share of streams whose model was up when they came."""
    if over == LATELY:
        return ratio(
            rate(names.TIME_TO_FIRST_TOKEN, "count", of, residency="hit", **labels),
            rate(names.TIME_TO_FIRST_TOKEN, "count", of, **labels),
        )
    return ratio(
        grown(names.TIME_TO_FIRST_TOKEN, "count", of, over, residency="hit", **labels),
        grown(names.TIME_TO_FIRST_TOKEN, "count", of, over, **labels),
    )
