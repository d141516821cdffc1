"""What clients got: requests, answers, tokens. A RequestObserver; fed with one record for each request, at its end.

Everything that a record leads to is found once for each model and start, because this runs for every request.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from llmswap.core.fleet import ModelId
from llmswap.runtime.observing import HeaderFields, RequestOutcome, RequestRecord, UpstreamError, Usage
from llmswap.telemetry import names
from llmswap.telemetry.cells import Catalogue, Cell, Exemplar, Histogram
from llmswap.telemetry.lives import Life, Residency
from llmswap.telemetry.names import UNKNOWN_MODEL, WARM
from llmswap.telemetry.rate import TokenRate

PREFILL_REQUESTS = 10  # llama-swap's default concurrency: about as many as wait for a swap and start at once
MAIN_ROUTE = "/v1/chat/completions"

_CODES = {status.value: str(status.value) for status in HTTPStatus} | {499: "499", 529: "529"}
# How requests mostly end: there from the start, so that the first of them shows as an increase.
_USUAL = (
    (RequestOutcome.OK, 200),
    (RequestOutcome.CLIENT_ERROR, 400),
    (RequestOutcome.CLIENT_DISCONNECT, 499),
    (RequestOutcome.QUEUE_TIMEOUT, 503),
    (RequestOutcome.QUEUE_FULL, 429),
    (RequestOutcome.SWAP_FAILED, 503),
    (RequestOutcome.REFUSED, 503),
    (RequestOutcome.UPSTREAM_ERROR, 502),
    (RequestOutcome.INTERNAL_ERROR, 500),
)
_WITHOUT_TOKENS = ("/v1/audio", "/v1/images", "/sdapi", "/audioapi", "/upstream", "/props")


class _Tokens(NamedTuple):
    """The cells of tokens by what they are; in the order of TOKEN_TYPES."""

    input: Cell
    output: Cell
    cached: Cell
    reasoning: Cell
    draft: Cell
    accepted: Cell


@dataclass(frozen=True, slots=True)
class _Start:
    """The cells of answers by how their model came up for them."""

    first_token: Histogram
    tokens: _Tokens


@dataclass(frozen=True, slots=True)
class _Model:
    """The cells of one model."""

    requests: dict[tuple[str, int, RequestOutcome | None], Cell]
    durations: dict[RequestOutcome, Histogram]
    upstream: dict[RequestOutcome, Histogram]
    errors: dict[UpstreamError, Cell]
    per_token: Histogram
    stall: Histogram
    estimated: Cell
    silent: Cell
    starts: dict[str, _Start]
    rate: TokenRate


class RequestMetrics:
    """Counts requests for models.

    Args:
        life: Gives what is known of a model.
        clock: Monotonic time.
    """

    def __init__(
        self, catalogue: Catalogue, life: Callable[[ModelId], Life | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._life = life
        self._clock = clock
        self._requests = catalogue.family(names.REQUESTS)
        self._durations = catalogue.histogram(names.REQUEST_DURATION)
        self._first_token = catalogue.histogram(names.TIME_TO_FIRST_TOKEN)
        self._per_token = catalogue.histogram(names.TIME_PER_OUTPUT_TOKEN)
        self._stall = catalogue.histogram(names.STREAM_STALL)
        self._tokens = catalogue.family(names.TOKENS)
        self._estimated = catalogue.family(names.ESTIMATED_TOKENS)
        self._rates = catalogue.family(names.TOKENS_PER_SECOND)
        self._silent = catalogue.family(names.WITHOUT_USAGE)
        self._unknown = catalogue.family(names.UNKNOWN_MODEL_REQUESTS).cell()
        self._prefill = catalogue.family(names.PREFILL_TOKENS)
        self._prefilled = catalogue.family(names.PREFILL_REQUESTS)
        self._upstream = catalogue.histogram(names.UPSTREAM_DURATION)
        self._errors = catalogue.family(names.UPSTREAM_ERRORS)
        self._overhead = catalogue.histogram(names.PROXY_OVERHEAD).cell()
        self._models: dict[ModelId, _Model] = {}
        self._strangers: dict[tuple[str, int, RequestOutcome | None], Cell] = {}

    def configured(self, kinds: Mapping[ModelId, tuple[str, ...]]) -> None:
        """Take over the models of a config, each with the ways in which it can come up."""
        self._models = {model: self._models.get(model) or self._model(model) for model in kinds}
        for model, ways in kinds.items():
            for start in (WARM, *ways):
                self._start(model, self._models[model], start)
            for kind in ways:
                self._prefill.cell(model, kind)
                self._prefilled.cell(model, kind, names.CACHED_KNOWN)
                self._prefilled.cell(model, kind, names.CACHED_UNKNOWN)

    def _model(self, model: ModelId) -> _Model:
        made = _Model(
            {},
            {RequestOutcome.OK: self._durations.cell(model, RequestOutcome.OK)},
            {RequestOutcome.OK: self._upstream.cell(model, RequestOutcome.OK)},
            {error: self._errors.cell(model, error) for error in UpstreamError},
            self._per_token.cell(model),
            self._stall.cell(model),
            self._estimated.cell(model),
            self._silent.cell(model),
            {},
            TokenRate(),
        )
        self._usual(model, made, MAIN_ROUTE)
        return made

    def _usual(self, model: ModelId, cells: _Model, route: str) -> None:
        for outcome, status in _USUAL:
            cells.requests[route, status, outcome] = self._requests.cell(model, route, _code(status), outcome)

    def _start(self, model: ModelId, cells: _Model, start: str) -> _Start:
        found = cells.starts.get(start)
        if found is None:
            residency = names.HIT if start == WARM else names.MISS
            found = cells.starts[start] = _Start(
                self._first_token.cell(model, residency, start),
                _Tokens._make(self._tokens.cell(model, kind, residency, start) for kind in names.TOKEN_TYPES),
            )
        return found

    # As a RequestObserver

    def waits(self, record: RequestRecord) -> None:
        """Do nothing: waits are counted off Steps."""

    def sends(self, record: RequestRecord) -> HeaderFields:
        """Give nothing to send."""
        del record
        return ()

    def ended(self, record: RequestRecord) -> None:
        """Count a request."""
        trace_id = record.trace_id
        now = time.time() if trace_id else 0.0
        asked = None if record.model is None else self._models.get(record.model)
        self._count(record, asked, now)
        outcome, ended_s = record.outcome, record.ended_s
        if asked is not None and outcome is not None and ended_s is not None:
            duration = asked.durations.get(outcome)
            if duration is None:
                duration = asked.durations[outcome] = self._durations.cell(record.model or "", outcome)
            duration.observe_with(ended_s - record.began_s, trace_id, now)
        if record.serving is None:
            return
        serving = asked if record.serving == record.model else self._models.get(record.serving)
        if serving is not None:
            self._served(record, record.serving, serving, now)

    def _count(self, record: RequestRecord, asked: _Model | None, now: float) -> None:
        key = record.route, record.status, record.outcome
        cells = self._strangers if asked is None else asked.requests
        cell = cells.get(key)
        if cell is None:
            cell = cells[key] = self._new(record, asked)
        cell.value += 1
        if record.trace_id:
            cell.exemplar = Exemplar(record.trace_id, 1.0, now)
        if asked is None and record.asked:
            self._unknown.value += 1

    def _new(self, record: RequestRecord, asked: _Model | None) -> Cell:
        model = UNKNOWN_MODEL if asked is None or record.model is None else record.model
        if asked is not None and record.model is not None and record.outcome is not None:
            self._usual(record.model, asked, record.route)
        return self._requests.cell(model, record.route, _code(record.status), record.outcome or "")

    def _served(self, record: RequestRecord, model: ModelId, cells: _Model, now: float) -> None:
        usage, outcome, trace_id = record.usage, record.outcome, record.trace_id
        sent_s = record.sent_s
        if sent_s is not None:
            overhead_s = sent_s - record.began_s - record.waited_s
            self._overhead.observe_with(overhead_s if overhead_s > 0 else 0.0, trace_id, now)
            if record.hop_ended_s is not None and outcome is not None:
                hop = cells.upstream.get(outcome)
                if hop is None:
                    hop = cells.upstream[outcome] = self._upstream.cell(model, outcome)
                hop.observe_with(record.hop_ended_s - sent_s, trace_id, now)
        if record.upstream_error is not None:
            cells.errors[record.upstream_error].value += 1
        residency = self._residency(record, model)
        start = WARM if record.swap_s is None or residency is None else residency.kind
        by_start = cells.starts.get(start) or self._start(model, cells, start)
        if usage.first_token_s is not None:
            by_start.first_token.observe_with(usage.first_token_s - record.began_s, trace_id, now)
        if usage.max_gap_s is not None:
            cells.stall.observe_with(usage.max_gap_s, trace_id, now)
        if usage.output_tokens is None and usage.input_tokens is None:
            if outcome is RequestOutcome.OK and not record.route.startswith(_WITHOUT_TOKENS):
                cells.silent.value += 1
            return
        self._meter(usage, outcome, cells, by_start)
        if residency is not None and usage.input_tokens is not None:
            self._paid(usage, usage.input_tokens, model, residency)

    def _meter(self, usage: Usage, outcome: RequestOutcome | None, cells: _Model, by_start: _Start) -> None:
        output, tokens = usage.output_tokens, by_start.tokens
        if usage.input_tokens:
            tokens.input.value += usage.input_tokens
        if output:
            tokens.output.value += output
        if usage.cached_tokens:
            tokens.cached.value += usage.cached_tokens
        if usage.reasoning_tokens:
            tokens.reasoning.value += usage.reasoning_tokens
        if usage.draft_tokens:
            tokens.draft.value += usage.draft_tokens
        if usage.accepted_tokens:
            tokens.accepted.value += usage.accepted_tokens
        cells.rate.add(self._clock(), usage.input_tokens or 0, output or 0)
        if usage.estimated:
            cells.estimated.value += output or 0
            if outcome is RequestOutcome.OK:
                cells.silent.value += 1
        elif output is not None and output > 1 and usage.first_token_s is not None and usage.last_token_s is not None:
            cells.per_token.observe((usage.last_token_s - usage.first_token_s) / (output - 1))

    def _residency(self, record: RequestRecord, model: ModelId) -> Residency | None:
        life = self._life(model)
        return None if life is None or record.granted_s is None else life.residency_at(record.granted_s)

    def _paid(self, usage: Usage, prompt: int, model: ModelId, residency: Residency) -> None:
        """Count what a prompt took anew, if it is one of the first of a residency."""
        if residency.told >= PREFILL_REQUESTS:
            return
        residency.told += 1
        if usage.cached_tokens is None:
            self._prefilled.cell(model, residency.kind, names.CACHED_UNKNOWN).value += 1
        else:
            self._prefilled.cell(model, residency.kind, names.CACHED_KNOWN).value += 1
            self._prefill.cell(model, residency.kind).value += max(0, prompt - usage.cached_tokens)

    def read(self, models: Iterable[ModelId]) -> None:
        """Read off the rates of tokens."""
        now_s = self._clock()
        for model in models:
            cells = self._models.get(model)
            if cells is not None:
                prompts, answers = cells.rate.per_second(now_s)
                self._rates.set(prompts, model, "input")
                self._rates.set(answers, model, "output")


def _code(status: int) -> str:
    return _CODES.get(status, names.OTHER_CODE)
