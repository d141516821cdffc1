"""The offered schedule: decided by the seed, and by nothing else."""

from collections import Counter
from itertools import islice

from loadtests import scenario
from loadtests.script import cast


def offered(name, seed, turns=200):
    return [list(islice(actor.turns(), turns)) for actor in cast(scenario.load(name), seed)]


def test_the_same_seed_offers_the_same_and_another_one_something_else():
    for name in ("opencode_fanout", "zipf", "disconnect", "unknown"):
        assert offered(name, 7) == offered(name, 7)
        assert offered(name, 7) != offered(name, 8)


def test_callers_of_the_same_name_do_not_act_in_step():
    first, second, *_ = offered("disconnect", 1)
    assert first != second


def test_a_caller_without_a_loop_is_through_after_its_first_steps():
    assert [len(turns) for turns in offered("burst", 1)] == [2] * 100


def test_about_three_of_ten_leave_and_in_the_first_half_of_the_stream():
    leaves = [call.leaves_at for turns in offered("disconnect", 1) for turn in turns for call in turn.calls]
    gone = [share for share in leaves if share < 1]
    assert 0.25 < len(gone) / len(leaves) < 0.35
    assert max(gone) <= 0.5


def test_what_only_a_load_test_draws_changes_nothing_else():
    text = (scenario.FOLDER / "disconnect.yaml").read_text()
    plain = scenario.loads(text.replace(", leaves: 0.3", ""), "disconnect.yaml")
    leaving = scenario.loads(text.replace("leaves: 0.3", "leaves: 1, madeUp: true"), "disconnect.yaml")
    for one, other in zip(cast(plain, 1), cast(leaving, 1), strict=True):
        for turn, same in islice(zip(one.turns(), other.turns(), strict=False), 50):
            assert turn.after_s == same.after_s
            assert [call.takes_s for call in turn.calls] == [call.takes_s for call in same.calls]
            assert all(call.made_up and call.leaves_at < 1 for call in same.calls)


def test_made_up_names_are_each_another():
    names = [call.made_up for turns in offered("unknown", 1) for turn in turns for call in turn.calls if call.made_up]
    assert len(names) == len(set(names)) > 500


def test_popular_models_are_asked_for_more_often():
    asked = Counter(call.model for turns in offered("zipf", 1, 2000) for turn in turns for call in turn.calls)
    assert [model for model, _ in asked.most_common(3)] == ["m1", "m2", "m3"]
    assert len(asked) == 10
    assert 1.8 < asked["m1"] / asked["m2"] < 2.6  # 2 ** 1.1 is 2.14
