"""Journals as workloads: what is read out of them, and that a simulation of the same policy comes out the same."""

from random import Random

import pytest

from llmswap.core import events as ev
from llmswap.core.commands import Dispatch, Reject, RejectReason, Start, StartCause, Stop, StopCause
from llmswap.core.fleet import ModelId
from llmswap.core.step import Step
from llmswap.journal.reader import JournalError
from llmswap.sim.whatif import scenario
from llmswap.sim.whatif.fleets import under_fair, under_fifo
from llmswap.sim.whatif.recorded import Shuffled, read
from llmswap.sim.whatif.score import Scorer
from llmswap.sim.whatif.stage import play
from llmswap.sim.workload import Order
from tests.core.story import arrive, cancel, done, fleet, ready, stopped
from tests.sim.whatif import journals

A, B = ModelId("a"), ModelId("b")
FLEET = fleet("a", "b")


def start(model, generation):
    return Start(model, ev.Generation(generation), StartCause.REQUEST)


def serve(request, model, generation):
    return Dispatch(ev.RequestId(request), model, ev.Generation(generation), 1.0)


SWAP = (
    Step(0, arrive(1, "a"), (start(A, 1),)),
    Step(20, ready("a", 1), (serve(1, A, 1),)),
    Step(25, done(1), ()),
    Step(28, arrive(2, "b"), (Stop(A, ev.Generation(1), StopCause.EVICT, B),)),
    Step(29, stopped("a", 1), (start(B, 2),)),
    Step(40, cancel(2), ()),
    Step(60, ready("b", 2), ()),
    Step(70, arrive(3, "b"), (Reject(ev.RequestId(3), RejectReason.OVER_LIMIT, ""),)),
)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.jsonl"


def under_held(models):
    """Fair with a fixed hold: a learnt one turns small differences into large ones, on either side."""
    return under_fair(models, hold_s=10.0)


def replayed(recorded, under):
    scorer = Scorer(0.0)
    play(recorded.workload(1), under, 1, recorded.duration_s, observers=(scorer,))
    return scorer.score(recorded.duration_s)


def test_a_journal_tells_what_was_asked_and_what_things_took(journal):
    journals.write(journal, FLEET, SWAP)
    told = read(journal)
    assert told.duration_s == 70
    assert [(past.model, past.arrived_s, past.service_s, past.gave_up) for past in told.requests] == [
        (A, 0, 5, False),
        (B, 28, None, True),
        (B, 70, None, False),
    ]
    assert told.loads == {A: [20], B: [31]}
    assert told.stops == {A: [1]}
    assert told.score.swaps == 2
    assert told.notes == ()


def test_a_client_that_left_while_it_waited_leaves_only_if_it_waits_as_long(journal):
    journals.write(journal, FLEET, SWAP)
    told = read(journal)
    assert replayed(told, told.fleet).cancelled == 1
    side_by_side = fleet("a", "b", groups=())
    quick = told.workload(1)
    for costs in quick.costs.values():
        costs.load.seen_s = (3.0,)
    scorer = Scorer(0.0)
    play(quick, side_by_side, 1, told.duration_s, observers=(scorer,))
    assert scorer.score(told.duration_s).cancelled == 0


def test_a_shutdown_ends_the_recording(journal):
    after = Step(80, ev.DrainRequested(5100.0), ())
    journals.write(journal, FLEET, [*SWAP, after, Step(81, arrive(4, "a"), ())])
    told = read(journal)
    assert (told.duration_s, len(told.requests)) == (70, 3)


def test_of_several_stretches_the_one_with_the_most_requests_is_used(journal):
    journals.write(journal, FLEET, SWAP[:3], run="one")
    journals.write(journal, FLEET, SWAP, run="two")
    journals.write(journal, FLEET, SWAP[:2], run="three")
    told = read(journal)
    assert len(told.requests) == 3
    assert "3 stretches" in told.notes[0]


def test_a_gap_parts_what_was_before_from_what_came_after(journal):
    journals.write(journal, FLEET, SWAP[:3])
    journals.write(journal, FLEET, SWAP[3:], number=99)
    assert len(read(journal).requests) == 2


def test_orders_are_given_again(journal):
    order = ev.LoadRequested(B)
    journals.write(journal, FLEET, [*SWAP[:3], Step(26, order, ()), Step(60, done(99), ())])
    told = read(journal)
    assert told.orders == (Order(26, order),)
    assert replayed(told, told.fleet).swaps == 2


def test_what_a_recording_does_not_tell_is_said(journal):
    journals.write(
        journal,
        FLEET,
        [
            Step(0, arrive(1, "a"), (serve(1, A, 1),)),
            Step(5, done(1), ()),
            Step(6, arrive(2, "b"), ()),
            Step(7, ev.FleetReloaded(fleet("a")), (Reject(ev.RequestId(2), RejectReason.MODEL_REMOVED, ""),)),
            Step(8, ev.UpstreamExited(A, ev.Generation(1), "killed"), ()),
            Step(9, arrive(3, "a"), ()),
        ],
    )
    told = read(journal)
    assert [past.model for past in told.requests] == [A, A]
    said = "\n".join(told.notes)
    assert "a: up already" in said
    assert "reloaded 1 time" in said
    assert "b: not in the last config" in said
    assert "a: no load was recorded; 30 s are taken" in said
    assert "1 start or upstream failed" in said


def test_a_model_that_was_never_loaded_takes_as_long_as_the_others(journal):
    journals.write(journal, FLEET, [*SWAP[:4], Step(50, arrive(3, "a"), ())])
    told = read(journal)
    assert any("b: no load was recorded; 20 s are taken, the median of all loads" in note for note in told.notes)
    assert told.workload(1).costs[B].load.draw(Random(1)) == 20


def test_a_journal_without_requests_cannot_be_simulated(journal):
    journals.write(journal, FLEET, [Step(0, ev.LoadRequested(A), (start(A, 1),))])
    with pytest.raises(JournalError, match="no request"):
        read(journal)


def test_recorded_durations_come_once_each_before_any_comes_again():
    rng, durations = Random(3), Shuffled((1.0, 2.0, 3.0, 4.0))
    drawn = [durations.draw(rng) for _ in range(8)]
    assert sorted(drawn[:4]) == sorted(drawn[4:]) == [1, 2, 3, 4]


def test_two_plays_of_one_recording_with_one_seed_are_the_same(journal):
    workload = scenario.load("opencode_fanout").workload
    journals.record(journal, workload, under_fair(workload.fleet), 3, 1800)
    told = read(journal)
    assert replayed(told, told.fleet) == replayed(told, told.fleet)


@pytest.mark.parametrize("under", [under_fifo, under_held])
@pytest.mark.parametrize("seed", [1, 7])
@pytest.mark.parametrize(
    "name",
    ["opencode_fanout", "claude_code_slots", "image_batch_vs_chat", "judge_committee", "resident_lockout", "ttl_race"],
)
def test_the_same_policy_simulated_against_its_own_recording_comes_out_the_same(journal, name, seed, under):
    """The bar: 5 % on swaps, 15 % on the p95 wait."""
    workload = scenario.load(name).workload
    policy = under(workload.fleet)
    journals.record(journal, workload, policy, seed, 4 * 3600.0)
    told = read(journal)
    again = replayed(told, policy)
    assert told.score.swaps > 20
    assert again.swaps == pytest.approx(told.score.swaps, rel=0.05)
    assert again.waits.p95_s == pytest.approx(told.score.waits.p95_s, rel=0.15)
    assert again.completed == pytest.approx(told.score.completed, rel=0.05)


def test_a_recording_under_one_policy_foretells_another(journal):
    """What the journal is for: recorded under fifo, simulated under fair, against fair itself."""
    workload = scenario.load("opencode_fanout").workload
    fair = under_held(workload.fleet)
    journals.record(journal, workload, under_fifo(workload.fleet), 7, 4 * 3600.0)
    told = replayed(read(journal), fair)
    truth = Scorer(0.0)
    play(workload, fair, 7, 4 * 3600.0, observers=(truth,))
    true = truth.score(4 * 3600.0)
    assert true.completed > 1.5 * read(journal).score.completed
    assert told.completed == pytest.approx(true.completed, rel=0.15)


def test_who_leaves_with_the_end_of_the_recording_was_not_impatient(journal):
    journals.write(
        journal, FLEET, [*SWAP, Step(80, arrive(4, "a"), ()), Step(90, cancel(4), ()), Step(90.2, done(9), ())]
    )
    told = read(journal)
    assert [past.gave_up for past in told.requests] == [False, True, False, False]
    assert told.requests[3].ended_s is None
