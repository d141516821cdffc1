"""The simulated box: exact times by hand, and what callers do when they wait, hang up, are refused, come again."""

from dataclasses import replace

import pytest

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Reject, Start, Stop, StopCause
from llmswap.core.fleet import Fleet, Group, Model, ModelId
from llmswap.sim.whatif.fleets import under_fair, under_fifo
from llmswap.sim.whatif.stage import play
from llmswap.sim.whatif.workload import Between, Call, Caller, Costs, Ending, OneOf, Turn, Workload
from llmswap.sim.workload import Order

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")
LOAD_S = {A: 10.0, B: 20.0, C: 30.0}
STOP_S = 1.0


def caller(name, *turns, answers=None):
    """Somebody who takes these turns, and notes the answers to each."""

    def script(rng):
        for turn in turns:
            got = yield turn
            if answers is not None:
                answers.append(got)

    return Caller(name, script)


def endless(name, model, think_s, takes_s):
    def script(rng):
        while True:
            yield Turn(rng.uniform(0, 2 * think_s), (Call(model, rng.uniform(0.5, 1.5) * takes_s),))

    return Caller(name, script)


def workload(*callers, orders=(), limit=10, queue_timeout_s=600.0):
    models = {each: Model(each, concurrency_limit=limit, queue_timeout_s=queue_timeout_s) for each in (A, B, C)}
    fleet = Fleet(models, {str(each): each for each in models}, (Group("all", (A, B, C)),))
    costs = {each: Costs(OneOf((LOAD_S[each],)), Between(STOP_S, STOP_S)) for each in models}
    return Workload("test", fleet, costs, callers, orders)


def run(work, until_s=500.0, fleet=None, seed=0):
    """Play it; give the steps and the answers."""
    steps, answers = [], []
    play(work, fleet or work.fleet, seed, until_s, observers=(steps.append,), listeners=(answers.append,))
    return steps, answers


def told(steps):
    """Write steps down, shortly; without the alarms that turned out to be early."""
    names = {ev.RequestArrived: "arrived", ev.RequestFinished: "finished", ev.RequestCancelled: "cancelled"}
    names |= {ev.UpstreamReady: "ready", ev.UpstreamStopped: "stopped", ev.DeadlineReached: "deadline"}
    names |= {Dispatch: "dispatch", Reject: "reject", Start: "start", Stop: "stop"}

    def word(thing):
        about = thing.request if hasattr(thing, "request") else getattr(thing, "model", "")
        return f"{names[type(thing)]} {about}".strip()

    return [
        (step.at_s, word(step.event), *map(word, step.commands))
        for step in steps
        if step.commands or not isinstance(step.event, ev.DeadlineReached)
    ]


TWO = (
    caller("x", Turn(0, (Call(A, 5),)), Turn(3, (Call(A, 5),))),
    caller("y", Turn(2, (Call(B, 4),))),
)


def test_two_loops_on_one_place_happen_as_computed_by_hand():
    steps, answers = run(workload(*TWO))
    assert told(steps) == [
        (0, "arrived 0", "start a"),
        (2, "arrived 1"),
        (10, "ready a", "dispatch 0"),
        (15, "finished 0", "stop a"),
        (16, "stopped a", "start b"),
        (18, "arrived 2"),
        (36, "ready b", "dispatch 1"),
        (40, "finished 1", "stop b"),
        (41, "stopped b", "start a"),
        (51, "ready a", "dispatch 2"),
        (56, "finished 2"),
    ]
    assert [(each.caller, each.came_s, each.dispatched_s, each.at_s) for each in answers] == [
        ("x", 0, 10, 15),
        ("y", 2, 36, 40),
        ("x", 18, 51, 56),
    ]
    assert {each.ending for each in answers} == {Ending.DONE}


def test_a_hold_changes_what_the_same_callers_meet():
    work = workload(*TWO)
    steps, _ = run(work, fleet=under_fair(work.fleet, hold_s=5))
    assert told(steps)[3:] == [
        (15, "finished 0"),
        (18, "arrived 2", "dispatch 2"),
        (23, "finished 2"),
        (28, "deadline", "stop a"),
        (29, "stopped a", "start b"),
        (49, "ready b", "dispatch 1"),
        (53, "finished 1"),
    ]


def test_requests_carry_their_callers_name():
    steps, _ = run(workload(*TWO))
    arrived = [step.event for step in steps if isinstance(step.event, ev.RequestArrived)]
    assert [(event.caller, event.model) for event in arrived] == [("x", A), ("y", B), ("x", A)]


def test_requests_carry_their_calls_swap_class():
    steps, answers = run(workload(caller("x", Turn(0, (Call(A, 5, swap_class=ev.SwapClass.NEVER_SWAP),)))))
    assert steps[0].event.swap_class is ev.SwapClass.NEVER_SWAP
    assert [each.ending for each in answers] == [Ending.REFUSED]


def test_the_same_seed_tells_the_same_story_and_another_seed_another():
    work = workload(endless("x", A, 3, 8), endless("y", B, 3, 8))
    assert run(work, seed=1) == run(work, seed=1)
    assert run(work, seed=1) != run(work, seed=2)


def test_policies_meet_the_same_demand_at_the_same_costs():
    callers = {"x": endless("x", A, 3, 8), "y": endless("y", B, 3, 8), "z": endless("z", C, 100, 3)}
    work = workload(*callers.values())
    work = replace(work, costs=dict.fromkeys(LOAD_S, Costs(Between(5, 30), Between(0, 3))))

    def asked_and_paid(fleet):
        steps, answers = run(work, 3000, fleet)
        asked = {name: [each.call for each in answers if each.caller == name] for name in callers}
        begun, loads = {}, {model: [] for model in LOAD_S}
        for step in steps:
            begun.update({each.model: step.at_s for each in step.commands if isinstance(each, Start)})
            if isinstance(step.event, ev.UpstreamReady):
                loads[step.event.model].append(round(step.at_s - begun[step.event.model], 6))
        return asked, loads

    fifo, fair = asked_and_paid(under_fifo(work.fleet)), asked_and_paid(under_fair(work.fleet, hold_s=10))
    assert fifo != fair
    for ours, others in zip(fifo, fair, strict=True):
        for who in ours:
            both = min(len(ours[who]), len(others[who]))
            assert both > 8
            assert ours[who][:both] == others[who][:both]


def test_a_closed_loop_never_has_two_requests_open():
    work = workload(endless("x", A, 1, 8), endless("y", B, 1, 8))
    steps, answers = run(work)
    assert len(answers) > 20
    open_by, who = {"x": 0, "y": 0}, {}
    for step in steps:
        if isinstance(step.event, ev.RequestArrived):
            who[step.event.request] = step.event.caller
            open_by[step.event.caller] += 1
        elif isinstance(step.event, ev.RequestFinished):
            open_by[who[step.event.request]] -= 1
        assert max(open_by.values()) <= 1


def test_a_burst_is_asked_at_once_and_the_turn_ends_with_its_last_answer():
    answers = []
    burst = Turn(0, (Call(A, 7), Call(A, 2), Call(A, 4)))
    steps, _ = run(workload(caller("x", burst, Turn(1, (Call(A, 1),)), answers=answers)))
    assert [line[0] for line in told(steps) if line[1].startswith("arrived")] == [0, 0, 0, 18]
    assert [each.at_s for each in answers[0]] == [17, 12, 14]


def test_nobody_waits_for_a_call_in_the_background():
    answers = []
    turns = (Turn(0, (Call(A, 50),), wait=False), Turn(1, (Call(A, 5),)))
    _, ended = run(workload(caller("x", *turns, answers=answers)))
    assert [(each.came_s, each.at_s) for each in ended] == [(1, 15), (0, 60)]
    assert answers[0] == ()


def test_a_turn_without_calls_is_a_pause():
    steps, _ = run(workload(caller("x", Turn(2), Turn(3, (Call(A, 1),)))))
    assert told(steps)[0][:2] == (5, "arrived 0")


def test_who_loses_patience_while_waiting_cancels():
    steps, answers = run(workload(caller("x", Turn(0, (Call(A, 5, patience_s=4),)), Turn(1, (Call(A, 5),)))))
    assert told(steps)[:4] == [
        (0, "arrived 0", "start a"),
        (4, "cancelled 0"),
        (5, "arrived 1"),
        (10, "ready a", "dispatch 1"),
    ]
    assert [(each.ending, each.dispatched_s) for each in answers] == [(Ending.HUNG_UP, None), (Ending.DONE, 10)]


def test_who_loses_patience_while_being_served_ends_the_lease():
    steps, answers = run(workload(caller("x", Turn(0, (Call(A, 5, patience_s=12),)))))
    assert told(steps)[-1] == (12, "finished 0")
    assert [(each.ending, each.dispatched_s, each.at_s) for each in answers] == [(Ending.HUNG_UP, 10, 12)]


def test_a_try_that_ran_out_of_patience_is_repeated_after_each_pause_in_turn():
    steps, answers = run(workload(caller("x", Turn(0, (Call(A, 2, patience_s=4, retries_s=(0.5, 3)),)))))
    assert [line[:2] for line in told(steps)] == [
        (0, "arrived 0"),
        (4, "cancelled 0"),
        (4.5, "arrived 1"),
        (8.5, "cancelled 1"),
        (10, "ready a"),
        (11.5, "arrived 2"),
        (13.5, "finished 2"),
    ]
    assert [(each.ending, each.tries, each.came_s, each.request) for each in answers] == [(Ending.DONE, 3, 0, 2)]


def test_the_last_try_that_fails_ends_the_call():
    _, answers = run(workload(caller("x", Turn(0, (Call(A, 2, patience_s=1, retries_s=(1,)),)))))
    assert [(each.ending, each.tries, each.at_s) for each in answers] == [(Ending.HUNG_UP, 2, 3)]


def test_a_refused_try_is_repeated_too():
    first = caller("x", Turn(0, (Call(A, 5),)))
    second = caller("y", Turn(1, (Call(A, 5, retries_s=(20,)),)))
    steps, answers = run(workload(first, second, limit=1))
    assert told(steps)[1] == (1, "arrived 1", "reject 1")
    assert [(each.caller, each.tries, each.at_s) for each in answers] == [("x", 1, 15), ("y", 2, 26)]


def test_who_is_refused_does_not_come_again_in_no_time():
    def script(rng):
        while True:
            yield Turn(0, (Call(A, 5),))

    _, answers = run(workload(caller("x", Turn(0, (Call(A, 500),))), Caller("y", script), limit=1), 100)
    refused = [each.at_s for each in answers if each.ending is Ending.REFUSED]
    assert refused == [float(second) for second in range(101)]


def test_a_prompt_is_read_anew_only_by_those_whose_model_was_reloaded_since():
    mine = Call(A, 1, cold_s=30)
    x = caller("x", Turn(0, (mine,)), Turn(1, (mine,)), Turn(10, (mine,)), Turn(1, (mine,)))
    y = caller("y", Turn(14, (Call(B, 1),)))
    late = caller("z", Turn(80, (mine,)))
    _, answers = run(workload(x, y, late))
    x_answers = [each for each in answers if each.caller == "x"]
    assert [each.cold for each in x_answers] == [False, False, True, False]
    assert [each.at_s - each.dispatched_s for each in x_answers] == [1, 1, 31, 1]
    assert [each.cold for each in answers if each.caller == "z"] == [False]


def test_calls_that_are_open_at_the_end_are_told_last():
    waiting = caller("y", Turn(2, (Call(B, 1),)))
    between_tries = caller("z", Turn(0, (Call(A, 1, patience_s=1, retries_s=(500,)),)))
    _, answers = run(workload(caller("x", Turn(0, (Call(A, 500),))), waiting, between_tries), 100)
    assert [(each.caller, each.ending, each.dispatched_s, each.at_s) for each in answers] == [
        ("x", Ending.OPEN, 10, 100),
        ("z", Ending.OPEN, None, 100),
        ("y", Ending.OPEN, None, 100),
    ]


def test_an_operators_unload_cuts_off_who_is_served_and_calls_off_a_load():
    orders = (
        Order(5, ev.LoadRequested(A)),
        Order(10, ev.UnloadRequested()),
        Order(50, ev.UnloadRequested((A,))),
    )
    steps, answers = run(workload(caller("x", Turn(30, (Call(A, 20, retries_s=(4,)),))), orders=orders))
    names = [ev.LoadRequested, ev.UnloadRequested]
    assert told([step for step in steps if type(step.event) not in names]) == [
        (11, "stopped a"),
        (30, "arrived 0", "start a"),
        (40, "ready a", "dispatch 0"),
        (50, "finished 0"),
        (51, "stopped a"),
        (54, "arrived 1", "start a"),
        (64, "ready a", "dispatch 1"),
        (84, "finished 1"),
    ]
    stops = [each for step in steps for each in step.commands if isinstance(each, Stop)]
    assert [each.cause for each in stops] == [StopCause.UNLOAD, StopCause.UNLOAD]
    assert [(each.tries, each.ending) for each in answers] == [(2, Ending.DONE)]


def test_an_unload_that_nobody_retries_after_is_an_end_of_its_own():
    work = workload(caller("x", Turn(0, (Call(A, 20),))), orders=(Order(15, ev.UnloadRequested()),))
    assert [(each.ending, each.at_s) for each in run(work)[1]] == [(Ending.CUT, 15)]


def test_deadlines_of_the_scheduler_are_kept():
    work = workload(caller("x", Turn(0, (Call(A, 500),))), caller("y", Turn(1, (Call(B, 5),))), queue_timeout_s=60)
    steps, answers = run(work, 200)
    assert told(steps)[-1] == (61, "deadline", "reject 1")
    assert answers[0].ending is Ending.REFUSED


def test_progress_is_told_about_a_hundred_times():
    heard = []
    work = workload(endless("x", A, 1, 1))
    play(work, work.fleet, 0, 10_000, progress=heard.append)
    assert 90 <= len(heard) <= 100
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(10_000, abs=200)


def test_the_number_of_events_is_told():
    work = workload(*TWO)
    assert play(work, work.fleet, 0, 500) == 11
