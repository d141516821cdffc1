"""One request's run through the engine: what it will say, and when each token is due."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random

from llmswap.fake_upstream.engine import Engine, Phase, Refused
from llmswap.fake_upstream.tokens import OutputLength, answer, tokenize

SPREAD_MAX = 0.7
SOONEST_S = 0.0005  # shorter gaps are not slept: a timer is no finer than that
YIELD_EVERY = 32


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request came: by the clock, and by the engine's count of aborts."""

    at_s: float
    aborts: int

    @classmethod
    def now(cls, engine: Engine) -> "Arrival":
        """The request has come just now."""
        return cls(time.monotonic(), engine.aborts)


@dataclass(slots=True)
class Run:
    """One generation.

    Attributes:
        planned: The answer, token by token; the first `reasoning` of them are thoughts.
        key: Names the run; the same for the same seed and prompt.
        produced: How many of them are out.
        finish: stop, length or abort.
        takes_s: How long it takes in all, before the time scale, tokens evenly spread; None leaves that to the knobs.
        cold_s: How much later all of it comes, before the time scale, because its prompt must be read anew.
        started_s, first_s, last_s: Monotonic times of the slot, the first and the last token.
    """

    model: str
    prompt_tokens: int
    cached_tokens: int
    planned: list[str]
    reasoning: int
    finish: str
    rng: Random
    key: str
    came: Arrival
    takes_s: float | None = None
    cold_s: float = 0.0
    started_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    produced: int = 0

    @property
    def reasoned(self) -> int:
        """How many of the produced tokens are thoughts."""
        return min(self.produced, self.reasoning)


def plan(engine: Engine, model: str, prompt: str, limit: int | None, came: Arrival) -> Run:
    """Decide what to answer to a prompt. The same seed and prompt give the same answer.

    Raises:
        Refused: The prompt does not fit the context.
    """
    tokens = tokenize(prompt)
    context = engine.options.context_tokens
    if len(tokens) >= context:
        raise Refused(400, f"This model's maximum context length is {context} tokens; the prompt has {len(tokens)}.")
    rng = Random(f"{engine.options.seed}/{engine.options.models[0]}/{prompt}")
    wanted = OutputLength.parse(engine.knobs.output_tokens).draw(rng)
    room = min(context - len(tokens), limit if limit is not None else context)
    length = min(wanted, room)
    return Run(
        model=model,
        prompt_tokens=len(tokens),
        cached_tokens=engine.cache.look_up(tokens),
        planned=answer(rng, length, garbage=engine.garbage or engine.weights_lost),
        reasoning=min(engine.knobs.reasoning_tokens, length),
        finish="stop" if length == wanted else "length",
        rng=rng,
        came=came,
        key=f"{rng.getrandbits(64):016x}",
    )


async def produce(engine: Engine, run: Run) -> AsyncIterator[str]:
    """Yield the tokens at their times; ends early, with `finish` abort, when the engine aborts everything."""
    loop, aborts, scale = asyncio.get_running_loop(), run.came.aborts, engine.knobs.time_scale
    run.started_s = time.monotonic()
    due = loop.time() + _first_s(engine, run) * scale
    for index, token in enumerate(run.planned):
        if due - loop.time() > SOONEST_S:
            await engine.pause_until(due)
        elif index % YIELD_EVERY == YIELD_EVERY - 1:
            await asyncio.sleep(0)
        if not engine.scheduling.is_set() and engine.aborts == aborts:
            await engine.scheduling.wait()
            due = max(due, loop.time())
        if engine.aborts != aborts or engine.phase is Phase.DEAD:
            run.finish = "abort"
            return
        run.last_s = time.monotonic()
        run.first_s = run.first_s or run.last_s
        run.produced += 1
        yield token
        due += _gap_s(engine, run) * engine.knobs.time_scale


def _first_s(engine: Engine, run: Run) -> float:
    """Give the time to the first token, before the time scale."""
    knobs = engine.knobs
    if run.takes_s is not None:
        return run.cold_s + (run.takes_s / len(run.planned) if run.planned else 0.0)
    prefill_ms = knobs.prefill_ms(run.prompt_tokens - run.cached_tokens) * _spread(run.rng, knobs.ttft_std)
    if engine.cold_wake:
        engine.cold_wake = False
        prefill_ms *= knobs.post_wake_ttft_mult
    return prefill_ms / 1000


def _gap_s(engine: Engine, run: Run) -> float:
    """Give the time from one token to the next, before the time scale."""
    if run.takes_s is not None:
        return run.takes_s / len(run.planned)
    return engine.knobs.itl_ms / 1000 * _crowding(engine) * _spread(run.rng, engine.knobs.itl_std)


def _crowding(engine: Engine) -> float:
    others = max(0, engine.running - 1)
    return 1 + (engine.knobs.load_factor - 1) * others / max(1, engine.knobs.max_num_seqs - 1)


def _spread(rng: Random, std: float) -> float:
    return 1 + max(-SPREAD_MAX, min(SPREAD_MAX, rng.gauss(0, std))) if std else 1.0
