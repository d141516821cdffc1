"""llama-swap's scheduling, row by row, as far as the pure core shows it: rows 78 to 93 of section 8.3."""

from llmswap.core.fleet import MatrixRules
from llmswap.core.matrix import Matrix
from tests.core.story import (
    Story,
    arrive,
    cancel,
    done,
    exited,
    failed,
    fleet,
    group,
    model,
    ready,
    reload,
    stopped,
    tick,
    together,
    unload,
)


def test_g078_concurrent_requests_to_a_stopped_model_make_one_start():
    story = Story(fleet("a"))
    assert story.all_at(0, arrive(1, "a"), arrive(2, "a"), arrive(3, "a")) == ["start a#1"]
    assert story.at(1, ready("a", 1)) == ["dispatch 1 a#1", "dispatch 2 a#1", "dispatch 3 a#1"]


def test_g079_a_b_c_a_b_c_makes_three_loads_of_two_requests_each():
    story = Story(fleet("a", "b", "c"))
    assert story.all_at(0, *(arrive(number, name) for number, name in enumerate("abcabc"))) == ["start a#1"]
    assert story.at(1, ready("a", 1)) == ["dispatch 0 a#1", "dispatch 3 a#1"]
    assert story.all_at(1, done(0), done(3), stopped("a", 1)) == ["stop a#1 evict for b", "start b#2"]
    assert story.at(2, ready("b", 2)) == ["dispatch 1 b#2", "dispatch 4 b#2"]
    assert story.all_at(2, done(1), done(4), stopped("b", 2)) == ["stop b#2 evict for c", "start c#3"]
    assert story.at(3, ready("c", 3)) == ["dispatch 2 c#3", "dispatch 5 c#3"]


def test_g080_a_request_that_evicts_a_streaming_model_waits_for_its_last_request():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), ready("a", 1))
    assert story.all_at(1, arrive(3, "b"), done(2)) == []
    assert story.at(2, done(1)) == ["stop a#1 evict for b"]


def test_g081_separate_non_exclusive_groups_load_side_by_side():
    groups = [group("g", "a", exclusive=False), group("h", "b", exclusive=False)]
    story = Story(fleet("a", "b", groups=groups))
    assert story.all_at(0, arrive(1, "a"), arrive(2, "b")) == ["start a#1", "start b#2"]


def test_g081_a_swap_group_loads_one_after_the_other_even_if_the_first_is_not_starting_yet():
    groups = [group("g", "a", "b", exclusive=False), group("big", "x")]
    story = Story(fleet("a", "b", "x", groups=groups))
    story.all_at(0, arrive(1, "b"), ready("b", 1), done(1))
    assert story.at(1, arrive(2, "a")) == ["stop b#1 evict for a"]
    assert story.at(1, arrive(3, "b")) == []
    assert story.at(2, stopped("b", 1)) == ["start a#2"]
    assert story.at(3, ready("a", 2)) == ["dispatch 2 a#2"]
    assert story.at(4, done(2)) == ["stop a#2 evict for b"]


def test_g082_of_two_targets_that_evict_the_same_model_the_second_waits():
    groups = [group("x", "x"), group("pair", "a", "b", swap=False)]
    story = Story(fleet("x", "a", "b", groups=groups))
    story.all_at(0, arrive(1, "x"), ready("x", 1), done(1))
    assert story.at(1, arrive(2, "a")) == ["stop x#1 evict for a"]
    assert story.at(1, arrive(3, "b")) == []
    assert [story.position(2), story.position(3)] == [None, 1]
    assert story.at(2, stopped("x", 1)) == ["start a#2", "start b#3"]


def test_g083_priorities_order_the_queue():
    priorities = {"a": 10, "b": 5, "c": 5, "d": 1}
    story = Story(fleet("x", *(model(name, priority=priority) for name, priority in priorities.items())))
    story.all_at(0, arrive(0, "x"), ready("x", 1), arrive(1, "b"), arrive(2, "d"), arrive(3, "c"), arrive(4, "a"))
    assert sorted((1, 2, 3, 4), key=story.position) == [4, 1, 3, 2]
    order, resident, generation = [], "x", 1
    requests = {"x": 0, "b": 1, "d": 2, "c": 3, "a": 4}
    for _ in range(4):
        story.at(1, done(requests[resident]))
        (started,) = story.at(1, stopped(resident, generation))
        resident, generation = started.removeprefix("start ").split("#")[0], generation + 1
        story.at(1, ready(resident, generation))
        order.append(resident)
    assert order == ["a", "b", "c", "d"]


def test_g084_a_queued_client_that_leaves_causes_no_load_and_frees_its_place():
    story = Story(fleet("x", model("a", concurrency_limit=1), "b"))
    story.all_at(0, arrive(0, "x"), ready("x", 1), arrive(1, "a"), arrive(2, "b"))
    assert [story.position(1), story.position(2)] == [1, 2]
    assert story.at(1, arrive(3, "a")) == ["reject 3 over_limit"]
    story.at(2, cancel(1))
    assert story.position(2) == 1
    assert story.at(3, arrive(4, "a")) == []
    story.at(3, cancel(4))
    assert story.at(4, done(0)) == ["stop x#1 evict for b"]


def test_g085_a_load_without_waiters_finishes_and_its_ttl_counts_from_readiness():
    story = Story(fleet(model("a", idle_ttl_s=60)))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), cancel(1), cancel(2))
    assert story.at(100, ready("a", 1)) == []
    assert story.at(101, tick) == []
    assert story.at(110, arrive(3, "a")) == ["dispatch 3 a#1"]
    story.at(111, done(3))
    assert story.at(170, tick) == []
    assert story.at(171, tick) == ["stop a#1 ttl"]


def test_g086_a_waiter_that_leaves_at_the_moment_of_its_grant_leaks_no_count():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"))
    assert story.at(1, ready("a", 1)) == ["dispatch 1 a#1"]
    story.all_at(1, cancel(1), done(1))  # the cancel crossed the grant: it is the lease that ends
    assert story.upstream("a").in_flight == 0
    assert story.at(2, arrive(2, "b")) == ["stop a#1 evict for b"]


def test_g087_the_limit_counts_in_flight_queued_and_waiting():
    story = Story(fleet("x", model("a", concurrency_limit=2)))
    story.all_at(0, arrive(0, "x"), ready("x", 1), arrive(1, "a"), arrive(2, "a"))
    assert story.at(0, arrive(3, "a")) == ["reject 3 over_limit"]
    assert story.reject.retry_after_s == 1
    story.all_at(1, done(0), stopped("x", 1))
    assert story.at(2, arrive(4, "a")) == ["reject 4 over_limit"]
    story.at(3, ready("a", 2))
    assert story.at(4, arrive(5, "a")) == ["reject 5 over_limit"]
    assert story.all_at(5, done(1), arrive(6, "a")) == ["dispatch 6 a#2"]


def test_g087_by_default_the_eleventh_is_refused():
    story = Story(fleet("a"))
    told = story.all_at(0, *(arrive(number, "a") for number in range(1, 12)))
    assert told == ["start a#1", "reject 11 over_limit"]


def test_g088_a_failed_start_refuses_all_its_waiters_and_the_queue_goes_on():
    story = Story(fleet("a", "b"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"), arrive(3, "b"))
    assert story.at(1, failed("a", 1)) == ["reject 1 upstream_failed", "reject 2 upstream_failed", "start b#2"]
    story.all_at(2, ready("b", 2), done(3))
    assert story.at(3, arrive(4, "a")) == ["stop b#2 evict for a"]  # after the backoff of 1 s


def test_g089_unload_while_loading_refuses_the_waiters_and_aborts_the_start():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), arrive(2, "a"))
    assert story.at(1, unload("a")) == ["reject 1 unloaded", "reject 2 unloaded", "stop a#1 unload"]
    assert story.at(2, arrive(3, "a")) == []
    assert story.at(3, stopped("a", 1)) == ["start a#2"]
    assert story.at(4, ready("a", 2)) == ["dispatch 3 a#2"]


def test_g089_unload_while_serving_cuts_and_does_not_deadlock():
    story = Story(fleet("a"))
    story.all_at(0, arrive(1, "a"), ready("a", 1))
    assert story.at(1, unload("a")) == ["stop a#1 unload"]
    assert story.all_at(2, arrive(2, "a"), stopped("a", 1)) == ["start a#2"]
    assert story.all_at(3, done(1), ready("a", 2)) == ["dispatch 2 a#2"]


def test_g091_a_request_while_the_model_stops_waits_and_restarts_it():
    for leave in ("ttl", "crash", "evict"):
        story = Story(fleet(model("a", idle_ttl_s=5), "b"))
        story.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
        story.at(5, {"ttl": tick, "crash": exited("a", 1), "evict": arrive(2, "b")}[leave])
        assert story.states()["a"] == "stopping"
        assert story.at(6, arrive(3, "a")) == []
        story.at(7, stopped("a", 1))
        if leave == "evict":
            story.all_at(8, ready("b", 2), done(2), stopped("b", 2))
        assert story.states()["a"] == "starting", leave
        assert story.at(9, ready("a", 3 if leave == "evict" else 2))[0].startswith("dispatch 3 a#")


def test_g092_a_persistent_group_is_not_evicted_by_an_exclusive_one():
    groups = [group("keep", "p", persistent=True, exclusive=False), group("big", "x")]
    story = Story(fleet("p", "x", groups=groups))
    story.all_at(0, arrive(1, "p"), ready("p", 1), done(1))
    assert story.at(1, arrive(2, "x")) == ["start x#2"]


def test_g092_a_guest_leaves_an_exclusive_model_running_until_that_is_asked_again():
    groups = [group("guests", "g", exclusive=False), group("big", "x")]
    story = Story(fleet("g", "x", groups=groups))
    story.all_at(0, arrive(1, "x"), ready("x", 1), done(1))
    assert story.at(1, arrive(2, "g")) == ["start g#2"]
    story.all_at(2, ready("g", 2), done(2))
    assert story.at(3, arrive(3, "x")) == ["stop g#2 evict for x"]
    assert story.at(4, stopped("g", 2)) == ["dispatch 3 x#1"]


def solve(sets, target, running, costs=None, models=("a", "b", "c", "x")):
    return Matrix(MatrixRules({}, sets, costs or {}), models).solve(target, running)


def test_g093_ties_go_by_definition_order():
    assert solve({"zeta": "x & b", "alpha": "x & c"}, "x", ["b", "c"]) == (("c",), "zeta", 1)


def test_g093_a_set_allows_its_subsets():
    assert solve({"s": "x & b & c"}, "x", ["b"]).evict == ()


def test_g093_what_is_dear_to_evict_stays():
    assert solve({"s": "x & (b | c)"}, "x", ["b", "c"], {"c": 10}).evict == ("b",)


def test_g093_a_target_in_no_set_evicts_all():
    assert solve({"s": "a & b"}, "x", ["a", "b"]).evict == ("a", "b")


def test_g093_a_dominated_alternative_is_not_chosen():
    assert solve({"s": "x | x & b"}, "x", ["b"]).evict == ()


def test_g093_a_running_target_evicts_nobody_even_in_a_mix_that_no_set_allows():
    story = Story(fleet("a", "b", groups=together("a", "b")))
    story.all_at(0, arrive(1, "a"), ready("a", 1), arrive(2, "b"), ready("b", 2))
    story.at(1, reload(fleet("a", "b", matrix=MatrixRules({}, {"s": "a | b"}))))
    assert story.at(2, arrive(3, "a")) == ["dispatch 3 a#1"]
