"""What makes a run pass, and what does not."""

import pytest

from loadtests import scenario, score
from loadtests.gate import failed_by_thresholds, judge
from loadtests.seen import Generator
from loadtests.target import Kind
from tests.loadtests.runs import RUN, sample, seen

PLAY = """
about: a test
run: {minutes: 6, scale: 0.1}
models: {m: {load: 1}}
callers: {agent: {loop: [{model: m, takes: 1, think: 1}]}}
samples: 4
thresholds: {THRESHOLDS}
"""


def judged(thresholds="done: {least: 1}", many=4, *, run=RUN, kind=Kind.LLMSWAP, **fields):
    play = scenario.loads(PLAY.replace("THRESHOLDS", thresholds), "small.yaml")
    return judge(score.card(seen([sample(call=n) for n in range(many)], kind, **fields), run), play)


def verdict(*args, **fields):
    made = judged(*args, **fields)["verdict"]
    assert made["passed"] == (not made["reasons"])
    return made["reasons"]


def test_a_run_within_its_thresholds_passes():
    assert verdict("done: {least: 4, most: 4}, failed_share: {exactly: 0}, wait.worst_s: {most: 5}") == [
        "requests: we count 4, the target 0",
        "answers: we count 4, the target 0",
        "seconds waited: we count 2, the target 0",
    ]  # this target has counted nothing at all; where it cannot be seen, nobody complains
    assert verdict("done: {least: 4, most: 4}", kind=Kind.OPENAI) == []


@pytest.mark.parametrize(
    ("thresholds", "reason"),
    [
        ("done: {least: 5}", "done: 4, wanted at least 5"),
        ("done: {most: 3}", "done: 4, wanted at most 3"),
        ("done: {exactly: 3}", "done: 4, wanted exactly 3"),
        ("done: {least: 1, most: 2}", "done: 4, wanted at least 1 and at most 2"),
        (
            "callers.nobody.done: {least: 1}",
            "callers.nobody.done: there is no such figure in this run, wanted at least 1",
        ),
        ("refusal_p99_ms: {most: 50}", "refusal_p99_ms: it never happened, wanted at most 50"),
    ],
)
def test_a_threshold_that_is_not_met_fails_the_run(thresholds, reason):
    assert verdict(thresholds, kind=Kind.OPENAI) == [reason]


def test_too_few_samples_fail_whatever_the_thresholds_say():
    assert verdict(many=3, kind=Kind.OPENAI) == ["too few samples: 3 requests have ended, 4 are needed"]
    assert verdict("failed: {exactly: 0}", many=0, kind=Kind.OPENAI) == [
        "too few samples: 0 requests have ended, 4 are needed"
    ]


def test_a_shorter_run_needs_fewer_samples():
    assert verdict(many=2, kind=Kind.OPENAI, ran_s=18.0) == []


@pytest.mark.parametrize(
    ("generator", "reason"),
    [
        (Generator(cpu_high=True, lags_s=(0.0,)), "the load generator used up a CPU core"),
        (Generator(cpu_high=False, lags_s=(0.0, 0.3)), "the load generator's timers were 300 ms late"),
    ],
)
def test_a_saturated_generator_fails_the_run(generator, reason):
    (told,) = verdict(kind=Kind.OPENAI, generator=generator)
    assert told.startswith(reason)


def test_what_a_strange_target_does_not_show_neither_passes_nor_fails():
    made = judged("swaps: {most: 1}, gpu_lost: {most: 0.5}", kind=Kind.OPENAI, run=RUN | {"alone": False})
    rows = {row["figure"]: row for row in made["thresholds"]}
    assert rows["gpu_lost"]["verdict"] == "not seen"
    assert "OpenAI" in rows["gpu_lost"]["why"]
    assert made["verdict"]["passed"]


def test_what_a_box_of_our_own_does_not_show_fails():
    assert verdict("aborted: {least: 1}", many=4)[0].startswith("aborted: upstreams that are not simulated")


def test_a_policy_is_shown_up_by_thresholds_and_by_nothing_else():
    assert failed_by_thresholds(
        judged("done: {least: 5}, swaps_per_h: {most: 9}", kind=Kind.OPENAI, run=RUN | {"alone": False})
    )
    assert not failed_by_thresholds(judged("done: {least: 4}", kind=Kind.OPENAI))
    assert not failed_by_thresholds(judged("done: {least: 5}", many=3, kind=Kind.OPENAI))
    hot = Generator(cpu_high=True, lags_s=())
    assert not failed_by_thresholds(judged("done: {least: 5}", kind=Kind.OPENAI, generator=hot))
