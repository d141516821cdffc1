"""The score card: what is counted, what is not seen, and what is held to the target's own counters."""

from dataclasses import replace

import pytest

from loadtests import score
from loadtests.checks import checks
from loadtests.exposition import Exposition, quantile
from loadtests.samples import Ending, Sample
from loadtests.seen import Generator, Upstreams, percentile
from loadtests.target import Kind, Lanes
from tests.loadtests.runs import RUN, lanes, sample, seen

METRICS = """
# HELP ignored words
llmswap_requests_total{model="m",route="/v1/chat/completions",code="200",outcome="ok"} 12
llmswap_requests_total{model="m",code="499",outcome="client_disconnect"} 0
llmswap_swaps_total{to_model="m",kind="cold",outcome="ok"} 5
llmswap_swaps_total{to_model="m",kind="wake1",outcome="ok"} 2
llmswap_swaps_total{to_model="m",kind="cold",outcome="exit"} 9
llmswap_swap_joined_requests_sum{to_model="m"} 3
llmswap_gpu_phase_seconds_total{gpu="0",phase="swapping"} 10
llmswap_gpu_phase_seconds_total{gpu="0",phase="serving"} 26
llmswap_queue_wait_seconds_sum{model="m",outcome="admitted"} 1.0
llmswap_requests_in_flight{model="m"} 1
"""
BEFORE = (
    METRICS.replace("} 5", "} 4")
    .replace("} 10", "} 1")
    .replace("} 26", "} 17")
    .replace("} 12", "} 10")
    .replace("} 9", "} 8")
)


def card(samples, *args, **fields):
    return score.card(seen(samples, *args, **fields), RUN)


def test_figures_are_in_the_scenarios_seconds_and_hours():
    made = card([sample(call=number, wait_s=0.1 * number) for number in range(1, 21)])
    assert (made["asked"], made["done"], made["ended"]) == (20, 20, 20)
    assert made["done_per_h"] == pytest.approx(200.0)  # 20 in 6 minutes
    assert made["wait"]["p95_s"] == pytest.approx(19.0)
    assert made["wait"]["worst_s"] == pytest.approx(20.0)
    assert made["ttft"]["hit"]["p50_s"] == pytest.approx(6.0)
    assert made["ttft"]["miss"] == {"count": 0, "p50_s": None, "p95_s": None, "worst_s": None}
    assert made["models"]["m"]["hits"] == made["callers"]["agent"]["done"] == 20


def test_answers_of_the_grace_after_the_curtain_are_not_worked_in_the_hour():
    late = sample(call=2, at_s=1035.5, e2e_s=1.0)
    made = card([sample(), late])
    assert (made["done"], made["done_per_h"]) == (2, pytest.approx(10.0))


def test_each_ending_is_counted_and_failures_are_told_by_kind():
    endings = [sample(each, call=number, why="") for number, each in enumerate(Ending)]
    endings += [sample(Ending.REFUSED, call=90, why="429 queue_full", status=429, e2e_s=0.004)] * 2
    made = card(endings)
    assert [made[ending] for ending in Ending] == [1, 1, 1, 1, 3, 1, 1, 1]
    assert made["failures"] == {"429 queue_full": 2, "refused": 1, "failed": 1, "cut": 1}
    assert made["failed_share"] == pytest.approx(5 / 9)
    assert made["refusal_p99_ms"] == pytest.approx(1000.0)


def test_who_was_never_served_waited_until_the_end_and_who_asked_for_nobody_did_not_wait():
    made = card([
        sample(Ending.GAVE_UP, status=0, wait_s=None, e2e_s=3.0),
        sample(Ending.MISSING, status=404, wait_s=None, call=2, e2e_s=9.0),
    ])  # fmt: skip
    assert (made["wait"]["count"], made["wait"]["worst_s"]) == (1, pytest.approx(30.0))


def test_swaps_are_counted_from_what_grew_and_only_those_that_succeeded():
    made = card([sample()], before=BEFORE, after=METRICS)
    assert (made["swaps"], made["wakes"], made["joined"]) == (1, 0, 0)
    assert made["gpu_lost"] == pytest.approx(0.5)
    assert made["gpu_lost_s"] == pytest.approx(90.0)
    assert (made["in_flight"], made["new_series"]) == (1, 0)


def test_new_series_are_counted():
    made = card([sample()], before=BEFORE, after=METRICS + 'llmswap_requests_total{model="evil"} 1\n')
    assert made["new_series"] == 1


@pytest.mark.parametrize("kind", [Kind.LLAMA_SWAP, Kind.OPENAI])
def test_what_a_target_does_not_show_is_marked_and_never_zero(kind):
    shown = lanes((0.0, {}), (1.0, {"m": "starting"}), (2.0, {"m": "ready"})) if kind is Kind.LLAMA_SWAP else Lanes(0.1)
    if kind is Kind.OPENAI:
        shown.see(0.0, None)
    made = card([sample(residency="", wait_s=None)], kind, lanes=shown)
    hidden = ["wait", "gpu_lost", "gpu_lost_s", "wakes", "joined", "thrash", "aborted", "in_flight", "new_series"]
    hidden += [] if kind is Kind.LLAMA_SWAP else ["swaps", "swaps_per_h"]
    assert {name: made[name] for name in hidden} == dict.fromkeys(hidden)
    assert set(hidden) <= set(made["unseen"])
    assert made["ttft"]["hit"] is None
    assert str(kind) in made["unseen"]["ttft.hit"]
    assert made["models"]["m"]["hits"] is None
    assert made["ttft"]["worst_s"] == pytest.approx(6.0)
    assert (made["swaps"], made["checks"]) == (1 if kind is Kind.LLAMA_SWAP else None, [])


def test_figures_are_found_by_dotted_names():
    made = card([sample()])
    assert score.figure(made, "callers.agent.wait.worst_s") == pytest.approx(5.0)
    assert score.figure(made, "ttft.miss.p95_s") is None
    with pytest.raises(KeyError):
        score.figure(made, "callers.nobody.done")


def test_the_slowest_come_first_and_some_that_were_traced_are_among_them():
    samples = [sample(call=number, e2e_s=100.0 - number) for number in range(40)]
    samples += [sample(call=99, e2e_s=0.5, trace="ab")]
    listed = card(samples)["slowest"]
    assert [row["e2e_s"] for row in listed[:2]] == [pytest.approx(1000.0), pytest.approx(990.0)]
    assert listed[-1]["trace"] == "ab"
    assert listed[0]["trace"] is None


def verdicts(run):
    return {check.name: check.verdict for check in checks(run)}


def test_counters_that_agree_do_and_those_that_do_not_are_told():
    samples = [sample(call=1), sample(call=2)]
    agreeing = verdicts(
        seen(samples, before=BEFORE.replace('sum{model="m",outcome="admitted"} 1', "x 0"), after=METRICS)
    )
    assert {agreeing[name] for name in ("requests", "answers", "refusals", "clients that left", "seconds waited")} == {
        "agree"
    }
    assert agreeing["still in flight"] == "differ"
    assert verdicts(seen(samples[:1], before=BEFORE, after=METRICS))["requests"] == "differ"


def test_others_may_ask_a_target_that_is_not_ours_but_not_less_than_we_did():
    two, three = [sample(call=n) for n in (1, 2)], [sample(call=n) for n in (1, 2, 3)]
    assert verdicts(seen(two[:1], before=BEFORE, after=METRICS, alone=False))["requests"] == "shared"
    assert verdicts(seen(three, before=BEFORE, after=METRICS, alone=False))["requests"] == "differ"


def test_times_to_the_first_token_are_held_to_ten_milliseconds_at_the_95th_percentile():
    samples = [sample(call=number, ttft_s=0.05, wait_s=0.0) for number in range(20)]
    page = "".join(f'llmswap_time_to_first_token_seconds_bucket{{le="{le}"}} {n}\n'
                   for le, n in (("0.025", 0), ("0.05", 20), ("+Inf", 20)))  # fmt: skip
    quiet = Generator(cpu_high=False, lags_s=(0.0,))

    def made(ours_s, theirs_s):
        own = [replace(each, ttft_s=ours_s) for each in samples]
        upstreams = Upstreams(0, (theirs_s,) * 20)
        run = seen(own, before="", after=page, generator=quiet, firsts_s=(theirs_s,) * 20, upstreams=upstreams)
        return [verdict for name, verdict in verdicts(run).items() if name.startswith("p95")]

    assert made(0.049, 0.045) == ["agree"] * 3
    assert made(0.062, 0.045) == ["differ"] * 3


def test_aborts_are_held_to_what_upstreams_saw():
    left = [sample(Ending.LEFT, call=number) for number in range(5)]
    for aborted, verdict in ((5, "agree"), (4, "differ")):
        run = seen(left, before="", after="", upstreams=Upstreams(aborted, ()))
        assert verdicts(run)["answers broken off"] == verdict


def test_an_exposition_is_read_with_its_escapes_and_empty_labels():
    page = Exposition.parse('a{x="1\\"2,y",z="}"} 3 1700000000\nb 4e2\n# TYPE b gauge\nbroken{\n')
    assert page.values == {("a", (("x", '1\\"2,y'), ("z", "}"))): 3.0, ("b", ()): 400.0}
    assert page.total("a", z="}") == 3
    assert page.total("a", z="other") == 0


def test_a_quantile_lies_between_two_buckets():
    assert quantile({"0.1": 5, "0.2": 9, "+Inf": 10}, 0.95) == (0.2, float("inf"))
    assert quantile({"0.1": 5, "0.2": 10, "+Inf": 10}, 0.95) == (0.1, 0.2)
    assert quantile({"0.1": 0, "+Inf": 0}, 0.95) is None
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_samples_survive_being_written_down():
    each = sample(Ending.CUT, why="a stream without [DONE]")
    assert Sample.of(each.record()) == each
