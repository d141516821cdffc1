"""Sleep and wake, as transcripts: who sleeps instead of being stopped, who is woken, and what may go wrong."""

from dataclasses import replace

from llmswap.core import events as ev
from llmswap.core.commands import Command, Sleep, SleepCause, Wake
from llmswap.core.explanation import Rule, Verb, Why
from llmswap.core.fleet import ModelId, Scheduling
from tests.core import story
from tests.core.story import (
    Story,
    arrive,
    done,
    drain,
    exited,
    fleet,
    load,
    model,
    ready,
    reload,
    stop_failed,
    stopped,
    tick,
    unload,
)


def asleep(name, generation, host_bytes=None):
    return ev.UpstreamAsleep(ModelId(name), ev.Generation(generation), host_bytes)


def sleep_failed(name, generation, *, lasting=False):
    return ev.SleepFailed(ModelId(name), ev.Generation(generation), "step 2 of 2 answered 500", lasting)


def wake_failed(name, generation):
    return ev.WakeFailed(ModelId(name), ev.Generation(generation), "out of memory")


def order(name, by_s):
    return ev.SleepRequested(ModelId(name), by_s)


def tell(command: Command) -> str:
    match command:
        case Sleep(name, generation, cause, evicted_for):
            return f"sleep {name}#{generation} {cause}" + (f" for {evicted_for}" if evicted_for else "")
        case Wake(name, generation):
            return f"wake {name}#{generation}"
    return story.tell(command)


class Night(Story):
    def at(self, now_s, event):
        self.commands = self.scheduler.handle(now_s, event)
        return [tell(command) for command in self.commands]


def sleepy(name, **traits):
    return model(name, sleeps=True, **traits)


def idle_a(*models, use=Scheduling.FIFO, **rules) -> Night:
    """`a` took 30 s to load and is idle since 31 s."""
    night = Night(replace(fleet(*(models or (sleepy("a"), sleepy("b")))), scheduling=use, **rules))
    night.all_at(0, arrive(1, "a"))
    night.all_at(30, ready("a", 1))
    night.all_at(31, done(1))
    return night


def a_asleep(*models, **rules) -> Night:
    """`a` sleeps since 42 s, `b` is idle since 72 s."""
    night = idle_a(*models, **rules)
    assert night.at(40, arrive(2, "b")) == ["sleep a#1 evict for b"]
    assert night.at(42, asleep("a", 1)) == ["start b#2"]
    night.all_at(71, ready("b", 2))
    night.all_at(72, done(2))
    return night


def test_who_can_sleep_is_put_to_sleep_for_another_and_woken_again():
    night = a_asleep()
    assert night.states() == {"a": "asleep", "b": "ready"}
    assert night.at(80, arrive(3, "a")) == ["sleep b#2 evict for a"]
    assert night.states() == {"a": "asleep", "b": "sleepPending"}
    assert night.at(82, asleep("b", 2)) == ["wake a#1"]
    assert night.at(84, ready("a", 1)) == ["dispatch 3 a#1"]


def test_nobody_is_started_before_the_sleeper_is_asleep():
    night = idle_a()
    night.at(40, arrive(2, "b"))
    assert night.at(41, arrive(3, "b")) == []
    assert [wait.obstacle.why for wait in night.scheduler.waits(0)] == [Why.STOPPING]


def test_who_comes_while_it_falls_asleep_or_wakes_waits_and_is_served():
    night = idle_a()
    night.at(40, arrive(2, "b"))
    assert night.at(41, arrive(3, "a")) == []
    assert night.at(42, asleep("a", 1)) == ["start b#2"]
    assert night.at(71, ready("b", 2)) == ["dispatch 2 b#2"]
    assert night.at(72, done(2)) == ["sleep b#2 evict for a"]
    assert night.at(73, asleep("b", 2)) == ["wake a#1"]
    assert night.at(74, arrive(4, "a")) == []
    assert night.at(75, ready("a", 1)) == ["dispatch 3 a#1", "dispatch 4 a#1"]


def test_a_failed_sleep_is_a_stop_and_the_swap_goes_on_when_it_is_gone():
    night = idle_a()
    night.at(40, arrive(2, "b"))
    assert night.at(50, sleep_failed("a", 1)) == ["stop a#1 sleep_failed"]
    assert night.upstream("a").sleep_failure == "step 2 of 2 answered 500"
    assert night.at(52, stopped("a", 1)) == ["start b#2"]
    assert night.upstream("a").sleep_failure == "step 2 of 2 answered 500", "kept, to be shown"


def test_who_turned_out_not_to_be_able_to_sleep_is_stopped_from_then_on_until_its_config_changes():
    night = idle_a()
    night.at(40, arrive(2, "b"))
    night.at(41, sleep_failed("a", 1, lasting=True))
    night.at(42, stopped("a", 1))
    night.all_at(43, ready("b", 2), done(2))
    night.at(50, arrive(3, "a"))
    night.at(51, asleep("b", 2))
    night.all_at(60, ready("a", 3), done(3))
    assert night.at(70, arrive(4, "b")) == ["stop a#3 evict for b"]


def test_a_failed_wake_is_a_stop_and_then_a_cold_start():
    night = a_asleep()
    night.at(80, arrive(3, "a"))
    night.at(82, asleep("b", 2))
    assert night.at(84, wake_failed("a", 1)) == ["stop a#1 wake_failed"]
    assert night.at(90, stopped("a", 1)) == ["start a#3"]
    assert night.at(120, ready("a", 3)) == ["dispatch 3 a#3"]
    assert night.upstream("a").sleep_failure == "out of memory"


def test_who_dies_while_it_falls_asleep_makes_room_all_the_same():
    night = idle_a()
    night.at(40, arrive(2, "b"))
    assert night.at(41, exited("a", 1)) == []
    assert night.at(42, stopped("a", 1)) == ["start b#2"]


def test_who_dies_asleep_starts_cold():
    night = a_asleep()
    assert night.at(80, exited("a", 1)) == []
    night.at(81, stopped("a", 1))
    night.at(82, unload("b"))
    night.at(83, stopped("b", 2))
    assert night.at(84, arrive(3, "a")) == ["start a#3"]


def test_who_dies_while_it_wakes_starts_cold_for_those_who_wait():
    night = a_asleep()
    night.at(80, arrive(3, "a"))
    night.at(82, asleep("b", 2))
    assert night.at(83, exited("a", 1)) == []
    assert night.at(84, stopped("a", 1)) == ["start a#3"]


def test_an_idle_model_is_put_to_sleep_after_a_while_and_a_sleeper_stopped_when_its_ttl_is_over():
    night = idle_a(sleepy("a", sleep_after_s=10.0, idle_ttl_s=100.0))
    assert night.deadline == 41
    assert night.at(41, tick) == ["sleep a#1 idle"]
    assert night.at(43, asleep("a", 1)) == []
    assert night.deadline == 131, "counted from its last answer"
    assert night.at(131, tick) == ["stop a#1 ttl"]
    told = [(decision.verb, decision.rule) for decision in night.scheduler.decisions()]
    assert told == [(Verb.SWAP, Rule.ALONE), (Verb.SLEEP, Rule.TTL), (Verb.STOP, Rule.TTL)]


def test_an_order_to_sleep_closes_admission_waits_for_what_is_in_flight_and_then_whoever_waits_wakes_it():
    night = Night(fleet(sleepy("a")))
    night.all_at(0, arrive(1, "a"), ready("a", 1))
    assert night.at(10, order("a", 70)) == []
    assert night.at(11, arrive(2, "a")) == []
    assert night.at(20, done(1)) == ["sleep a#1 order"]
    assert night.at(21, asleep("a", 1)) == ["wake a#1"]
    assert night.at(22, ready("a", 1)) == ["dispatch 2 a#1"]


def test_an_order_to_sleep_lapses_if_it_stays_busy():
    night = Night(fleet(sleepy("a")))
    night.all_at(0, arrive(1, "a"), ready("a", 1))
    night.at(10, order("a", 20))
    night.at(11, arrive(2, "a"))
    assert night.deadline == 20
    assert night.at(20, tick) == ["dispatch 2 a#1"]
    assert night.at(30, done(1)) == []
    assert night.at(31, done(2)) == []
    assert night.states() == {"a": "ready"}


def test_who_cannot_sleep_takes_no_order_to():
    night = Night(fleet("a"))
    night.all_at(0, arrive(1, "a"), ready("a", 1), done(1))
    assert night.at(10, order("a", 20)) == []
    assert night.states() == {"a": "ready"}


def test_with_no_room_among_the_sleepers_the_one_that_loads_fastest_is_stopped():
    night = a_asleep(sleepers_max=1)
    assert night.at(80, arrive(3, "a")) == ["stop b#2 evict for a"], "b loads in 29 s, a in 30 s, and a is wanted"
    limited = idle_a(sleepy("a"), sleepy("b"), sleepy("c"), sleepers_max=1)
    limited.at(40, arrive(2, "b"))
    limited.at(41, asleep("a", 1))
    limited.all_at(91, ready("b", 2), done(2))
    assert limited.at(99, arrive(3, "c")) == ["stop a#1 sleepers", "sleep b#2 evict for c"], "a loads in 30 s, b in 50"


def test_sleepers_that_keep_too_much_host_memory_are_stopped():
    night = idle_a(sleepers_host_bytes=10)
    night.at(40, arrive(2, "b"))
    assert night.at(41, asleep("a", 1, host_bytes=8)) == ["start b#2"]
    night.all_at(91, ready("b", 2), done(2))
    assert night.at(95, load("a")) == ["sleep b#2 evict for a"]
    assert night.at(96, asleep("b", 2, host_bytes=8)) == ["wake a#1"], "a is no sleeper any more"


def test_a_sleeper_is_stopped_by_an_unload_a_reload_and_at_the_end():
    assert a_asleep().at(80, unload("a")) == ["stop a#1 unload"]
    changed = fleet(sleepy("a", version="2"), sleepy("b"))
    assert a_asleep().at(80, reload(changed)) == ["stop a#1 reload"]
    assert a_asleep().at(80, drain(100)) == ["stop a#1 shutdown", "stop b#2 shutdown"]


def test_a_sleeper_that_is_being_stopped_holds_up_nobody():
    night = a_asleep()
    night.at(80, unload("a", "b"))
    night.at(81, stopped("b", 2))
    assert night.at(82, arrive(3, "b")) == ["start b#3"], "a's device memory is free already"


def test_who_may_not_swap_does_not_wake():
    night = a_asleep()
    request = ev.RequestArrived(ev.RequestId(3), ModelId("a"), swap_class=ev.SwapClass.NEVER_SWAP)
    assert night.at(80, request) == ["reject 3 would_swap"]


def test_an_estimate_for_a_sleeper_is_what_its_last_wake_took():
    night = a_asleep()
    night.at(80, arrive(3, "a"))
    night.at(82, asleep("b", 2))
    night.at(85, ready("a", 1))
    night.at(90, done(3))
    night.at(100, arrive(4, "b"))
    night.at(102, asleep("a", 1))
    night.at(103, arrive(5, "a"))
    night.at(106, ready("b", 2))
    night.at(107, done(4))
    (wait,) = night.scheduler.waits(0)
    assert (wait.obstacle.why, wait.ready_at_s) == (Why.STOPPING, 107 + 2.0 + 3.0), "b's sleep, a's wake"


def lacked_memory(name, generation):
    reason = "exited with code 1 during start: CUDA out of memory"
    return ev.StartFailed(ModelId(name), ev.Generation(generation), reason, out_of_memory=True)


def test_a_start_that_lacks_memory_is_tried_once_more_when_the_sleepers_that_nobody_wants_are_gone():
    night = a_asleep(sleepy("a"), sleepy("b"), sleepy("c"))
    assert night.at(80, arrive(3, "c")) == ["sleep b#2 evict for c"]
    assert night.at(82, asleep("b", 2)) == ["start c#3"]
    assert night.at(90, lacked_memory("c", 3)) == ["stop b#2 sleepers", "stop a#1 sleepers"]
    assert night.at(91, stopped("a", 1)) == []
    assert night.at(92, stopped("b", 2)) == ["start c#4"]
    assert night.at(99, lacked_memory("c", 4)) == ["reject 3 upstream_failed"], "once"


def test_who_is_wanted_may_sleep_on_beside_a_start_that_lacked_memory():
    night = a_asleep(sleepy("a"), sleepy("b"), sleepy("c"))
    night.all_at(80, arrive(3, "c"))
    night.all_at(82, asleep("b", 2))
    assert night.at(83, arrive(4, "b")) == []
    assert night.at(90, lacked_memory("c", 3)) == ["stop a#1 sleepers"]
    assert night.at(91, stopped("a", 1)) == ["start c#4"]
    assert night.states()["b"] == "asleep"


def test_a_start_that_fails_otherwise_costs_no_sleeper_its_place():
    night = a_asleep(sleepy("a"), sleepy("b"), sleepy("c"))
    night.all_at(80, arrive(3, "c"))
    night.all_at(82, asleep("b", 2))
    assert night.at(90, story.failed("c", 3)) == ["reject 3 upstream_failed"]
    assert night.states() == {"a": "asleep", "b": "asleep", "c": "failed"}


def test_a_start_that_failed_and_leaves_its_memory_stuck_refuses_who_waits_at_once_and_says_why():
    night = idle_a()
    night.all_at(40, arrive(2, "b"))
    night.all_at(42, asleep("a", 1))
    assert night.at(50, stop_failed("b", 2)) == ["reject 2 stuck"]
    assert night.upstream("b").stuck
    assert night.upstream("b").failure == "still there after SIGKILL"
    assert night.at(60, arrive(3, "b")) == ["reject 3 stuck"]
    assert night.at(90, lacked_memory("b", 2)) == []
    assert night.at(91, arrive(4, "b")) == ["start b#3"]


def test_who_fails_to_wake_for_good_is_not_put_to_sleep_again():
    night = a_asleep()
    night.all_at(80, arrive(3, "a"))
    night.all_at(82, asleep("b", 2))
    lasting = ev.WakeFailed(ModelId("a"), ev.Generation(1), "wake step 1 of 1 answered 404", lasting=True)
    assert night.at(83, lasting) == ["stop a#1 wake_failed"]
    assert night.at(84, stopped("a", 1)) == ["start a#3"]
    assert night.at(99, ready("a", 3)) == ["dispatch 3 a#3"]
    night.all_at(100, done(3))
    assert not night.upstream("a").can_sleep
    assert night.at(110, arrive(4, "b")) == ["stop a#3 evict for b"]


def test_two_in_a_row_that_go_wrong_are_enough_until_it_is_unloaded():
    night = a_asleep()
    night.all_at(80, arrive(3, "a"))
    night.all_at(82, asleep("b", 2))
    night.all_at(83, wake_failed("a", 1))
    night.all_at(84, stopped("a", 1))
    night.all_at(99, ready("a", 3))
    night.all_at(100, done(3))
    assert night.upstream("a").can_sleep
    night.all_at(110, arrive(4, "b"))
    assert night.at(111, sleep_failed("a", 3)) == ["stop a#3 sleep_failed"]
    assert not night.upstream("a").can_sleep
    night.all_at(112, stopped("a", 3))
    night.all_at(113, unload("a"))
    night.all_at(114, arrive(5, "a"))
    assert night.upstream("a").can_sleep, "what made it fail may be different now"


def test_a_sleeper_that_woke_by_itself_holds_its_place_until_it_is_gone():
    night = a_asleep()
    night.all_at(75, unload("b"))
    night.all_at(76, stopped("b", 2))
    awake = ev.UpstreamExited(ModelId("a"), ev.Generation(1), "it woke without being asked", awake=True)
    night.all_at(80, awake)
    assert night.at(81, arrive(3, "b")) == []
    assert night.at(82, stopped("a", 1)) == ["start b#3"]


def test_an_idle_model_without_a_place_among_the_sleepers_stays_up_and_sleeps_when_there_is_one():
    night = a_asleep(sleepy("a"), sleepy("b", sleep_after_s=20.0), sleepers_max=1)
    assert night.at(92, tick) == []
    assert night.states() == {"a": "asleep", "b": "ready"}
    due_s = night.scheduler.next_deadline_s()
    assert due_s is None or due_s > 92, "it is not looked at again and again"
    assert night.at(95, unload("a")) == ["stop a#1 unload", "sleep b#2 idle"]


def test_the_host_memory_of_a_sleeper_is_remembered_when_places_are_given_out():
    night = idle_a(sleepy("a"), sleepy("b"), sleepy("c"), sleepers_host_bytes=10)
    night.all_at(40, arrive(2, "b"))
    night.all_at(42, asleep("a", 1, 8))
    night.all_at(43, ready("b", 2))
    night.all_at(44, done(2))
    night.all_at(50, arrive(3, "a"))
    night.all_at(51, asleep("b", 2, 1))
    night.all_at(52, ready("a", 1))
    night.all_at(53, done(3))
    night.all_at(60, arrive(4, "c"))
    assert night.commands == [Sleep(ModelId("a"), ev.Generation(1), SleepCause.EVICT, ModelId("c"))], (
        "9 are not too many"
    )
    night.all_at(61, asleep("a", 1, 9))
    night.all_at(62, ready("c", 3))
    night.all_at(63, done(4))
    night.all_at(70, arrive(5, "a"))
    night.all_at(71, asleep("c", 3, 2))
    night.all_at(72, ready("a", 1))
    night.all_at(73, done(5))
    assert night.states() == {"a": "ready", "b": "asleep", "c": "asleep"}
    assert night.at(80, order("a", 90)) == ["stop b#2 sleepers", "stop c#3 sleepers", "sleep a#1 order"]
