"""Samples and what was seen of a run, made by hand."""

from dataclasses import replace

from loadtests.exposition import Exposition
from loadtests.samples import Ending, Sample
from loadtests.seen import Generator, Seen
from loadtests.target import Kind, Lanes

RUN = {"scenario": "hit", "about": "a test", "when": "2026-11-21T12:00:00+00:00", "began_s": 1000.0, "seed": 1}
RUN |= {"target": "http://127.0.0.1:1", "alone": True, "callers": 1, "policy": "fair"}
REAL_S = 0.1


def sample(ending=Ending.DONE, *, at_s=1000.0, call=1, **fields):
    known = {"status": 200, "wait_s": 0.5, "residency": "hit", "e2e_s": 1.0, "ttft_s": 0.6} | fields
    return replace(Sample(at_s, "agent", 0, call, 1, "m", "chat", 5.0), ending=ending, **known)


def lanes(*changes):
    seen = Lanes(0.1)
    for at_s, states in changes:
        seen.see(at_s, {model: {"state": state} for model, state in states.items()})
    return seen


def seen(samples, kind=Kind.LLMSWAP, *, before="", after=None, **fields):
    """Make a run of 36 real seconds, 6 minutes of the scenario."""
    known = {"lanes": lanes((0.0, {})), "generator": Generator(cpu_high=False, lags_s=(0.001,)), "alone": True}
    if kind is Kind.LLMSWAP:
        known |= {"before": Exposition.parse(before), "after": Exposition.parse(before if after is None else after)}
    return Seen(
        **({"kind": kind, "samples": samples, "began_s": 1000.0, "ran_s": 36.0, "real_s": REAL_S} | known | fields)
    )
