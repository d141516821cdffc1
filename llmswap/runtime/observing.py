"""What requests and upstreams go through, for those who watch. Values and protocols; who watches: telemetry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from llmswap.core.commands import RejectReason
from llmswap.core.events import Generation, RequestId
from llmswap.core.fleet import ModelId

HeaderFields = Sequence[tuple[str, str]]


class RequestOutcome(StrEnum):
    """How a client's request ended. A closed set: it is a metric label."""

    OK = "ok"
    CLIENT_ERROR = "client_error"  # it could not be served as it was: 4xx, from us or from the upstream
    CLIENT_DISCONNECT = "client_disconnect"
    QUEUE_TIMEOUT = "queue_timeout"
    QUEUE_FULL = "queue_full"  # or the model's own limit
    SWAP_FAILED = "swap_failed"  # the model could not be brought up
    REFUSED = "refused"  # nobody's fault: shutting down, unloaded, removed, may not swap
    UPSTREAM_ERROR = "upstream_error"  # it broke off, did not answer, or answered 5xx
    INTERNAL_ERROR = "internal_error"


class UpstreamError(StrEnum):
    """What went wrong between us and an upstream. A closed set: it is a metric label."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    RESET = "reset"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    BAD_STREAM = "bad_stream"  # a stream of events that lacks its end, or holds an error


@dataclass(slots=True)
class Usage:
    """What an answer says that it took, and when its parts passed. None: nobody said so, which is not 0.

    Attributes:
        input_tokens: Of the prompt, those taken from a cache included.
        output_tokens: Generated, reasoning included.
        draft_tokens: Proposed by a draft model; `accepted_tokens`, how many of those were taken.
        estimated: `output_tokens` is the number of content chunks, for want of better.
        first_token_s: Monotonic time of the first chunk with content.
        last_token_s: The same of the last.
        chunks: Events of a stream.
        max_gap_s: The longest time between two of them, from the first with content on; None with fewer than two.
        done: Whether a stream of events ended as its dialect says; None if it was none.
        failed: Whether it said, under status 200, that it failed: an error event, or an answer that was aborted.
        prefill_s: What the engine says that the prompt took; `decode_s`, the same of the answer.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    draft_tokens: int | None = None
    accepted_tokens: int | None = None
    estimated: bool = False
    first_token_s: float | None = None
    last_token_s: float | None = None
    chunks: int = 0
    max_gap_s: float | None = None
    done: bool | None = None
    failed: bool = False
    prefill_s: float | None = None
    decode_s: float | None = None
    response_model: str | None = None
    finish_reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class RequestRecord:
    """One client's request for a model, from its head to the last byte of the answer; filled in as things happen.

    All times are monotonic seconds.

    Attributes:
        route: Of the URL table, as written there: a closed set.
        path: As the client sent it, without the query.
        remote: The client's address, as far as it can be told.
        trace_parent: `traceparent` as the client sent it; empty if it sent none; `trace_state` likewise.
        model: Who is asked for; None as long as no configured model is known.
        asked: The model's name as the client wrote it, shortened.
        caller: As swaps are put down to it: never a label.
        caller_class: A configured key's name, or `_other`: a closed set.
        stream: The client wants events.
        max_tokens: As the client limits it.
        request: Its number in the scheduler's books, the last one if it entered twice.
        position: Its place in the whole queue when it began to wait; None if its model was already on its way.
        waiting: How many waited for the model then, itself included.
        granted_s: When it got its upstream, the last time if it did twice.
        waited_s: From arrival at the gate to that, both times together.
        swap_s: How much of that was a swap; None if the model was up.
        serving: Who serves, or a substitute.
        sent_s: When sending to the upstream began.
        first_byte_s: When the answer's body began to come.
        hop_ended_s: When the upstream had said its last byte, or was given up.
        ended_s: When the client had got its last byte, or was given up.
        status: Sent to the client; 499 if it left before.
        upstream_status: Sent by the upstream; None if it sent none.
        refusal: Why the scheduler refused it.
        error: What went wrong in a line, without payload or secrets.
        trace_id: 32 hex digits if it is traced and sampled, else empty. Telemetry's.
        span_id: 16 hex digits, of its SERVER span, once that is written; else empty. Telemetry's.
        trace: Whatever telemetry wants to keep with it.
    """

    id: str
    method: str
    route: str
    path: str
    began_s: float
    remote: str = ""
    trace_parent: str = ""
    trace_state: str = ""
    model: ModelId | None = None
    asked: str = ""
    caller: str = ""
    caller_class: str = "_other"
    stream: bool = False
    max_tokens: int | None = None
    request: RequestId | None = None
    position: int | None = None
    waiting: int = 0
    entered_s: float | None = None
    granted_s: float | None = None
    waited_s: float = 0.0
    swap_s: float | None = None
    serving: ModelId | None = None
    generation: Generation | None = None
    base_url: str = ""
    sent_s: float | None = None
    first_byte_s: float | None = None
    hop_ended_s: float | None = None
    ended_s: float | None = None
    status: int = 0
    upstream_status: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    refusal: RejectReason | None = None
    outcome: RequestOutcome | None = None
    upstream_error: UpstreamError | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    trace_id: str = ""
    span_id: str = ""
    trace: object = None


class RequestObserver(Protocol):
    """Sees requests for models. Must not block or raise: `telemetry.watching` shields all else from one that does."""

    def waits(self, record: RequestRecord) -> None:
        """See it begin to wait: it was not answered at once."""

    def sends(self, record: RequestRecord) -> HeaderFields:
        """See it about to be sent upstream, maybe for a second time.

        Gives fields to send in place of the client's; an empty one is not sent at all.
        """

    def ended(self, record: RequestRecord) -> None:
        """See it over. Called once for each record, whatever became of it."""


class Unobserved:
    """A RequestObserver that looks away."""

    def waits(self, record: RequestRecord) -> None:
        """Do nothing."""

    def sends(self, record: RequestRecord) -> HeaderFields:
        """Give nothing to send."""
        del record
        return ()

    def ended(self, record: RequestRecord) -> None:
        """Do nothing."""


class PhaseKind(StrEnum):
    """What is done to an upstream. A closed set: it is a metric label."""

    STOP = "stop"
    SLEEP = "sleep"
    FREE_WAIT = "free_wait"  # until its device memory is free
    START = "start"  # until it is spawned
    HEALTH_WAIT = "health_wait"  # from there until its probe answers
    WAKE = "wake"
    WARMUP = "warmup"
    CALL = "call"  # one request to its control API, within a sleep or a wake


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of what is done to an upstream, told when it is over and before the event that it leads to.

    Attributes:
        began_s, ended_s: Monotonic.
        error: What went wrong, in a line without secrets; empty if nothing did.
        call: Method and path of a CALL; `status`, its answer's, None if none came.
        pid: The leader's, where there is one.
        changes: Of a HEALTH_WAIT: when the probe's answer changed, and to what.
        exit_code: The leader's, if it ended by itself or was to end.
        freed_bytes: Of a FREE_WAIT: the device memory that was seen to come free; None if nobody can tell.
        probes: Of a HEALTH_WAIT: how often it was asked; the last answer was the good one, if there is no error.
    """

    model: ModelId
    generation: Generation
    kind: PhaseKind
    began_s: float
    ended_s: float
    error: str = ""
    call: str = ""
    status: int | None = None
    pid: int | None = None
    changes: tuple[tuple[float, str], ...] = ()
    exit_code: int | None = None
    freed_bytes: int | None = None
    probes: int = 0


PhaseObserver = Callable[[Phase], None]
"""Sees phases; must not block or raise."""

StartEnviron = Callable[[ModelId, Generation], Mapping[str, str]]
"""Gives what a start's environment gets beside the configured one: the trace context that it belongs to."""
