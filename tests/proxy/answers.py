"""Answers as engines give them, API by API, with what they took: the shapes are theirs, words and numbers are ours."""

import json
from dataclasses import dataclass, field
from typing import Any

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        says: Fields of Usage that it must give; those not named must be unknown.
    """

    name: str
    path: str
    body: bytes
    says: dict[str, Any] = field(default_factory=dict)
    content_type: str = SSE

    def __str__(self) -> str:
        return self.name


def event(data: Any, name: str = "", eol: str = "\n") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return f"{f'event: {name}{eol}' if name else ''}data: {text}{eol}{eol}".encode()


def stream(*events: Any, done: bool = True, eol: str = "\n") -> bytes:
    return b"".join(event(data, eol=eol) for data in (*events, *(["[DONE]"] if done else [])))


def typed(*events: dict[str, Any]) -> bytes:
    return b"".join(event(data, data["type"]) for data in events)


def piece(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "big", "choices": [choice], **more}


def totals(usage: Any, **more: Any) -> dict[str, Any]:
    """The chunk that comes because of `include_usage`."""
    return {**piece(), "choices": [], "usage": usage, **more}


ROLE, WORDS = piece({"role": "assistant", "content": ""}), [piece({"content": f" w{number}"}) for number in range(5)]
TALK, STOP = [ROLE, *WORDS], piece(finish="stop")
USED = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
AS_TOKENS = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}
TIMINGS = {
    "cache_n": 4, "prompt_n": 7, "prompt_ms": 250.0, "predicted_n": 5, "predicted_ms": 500.0,
    "draft_n": 6, "draft_n_accepted": 3,
}  # fmt: skip
TIMED = {
    "input_tokens": 11, "output_tokens": 5, "cached_tokens": 4, "draft_tokens": 6, "accepted_tokens": 3,
    "prefill_s": 0.25, "decode_s": 0.5,
}  # fmt: skip
ENDED = {"done": True, "finish_reasons": ("stop",), "response_model": "big"}
PLAIN = {"input_tokens": 11, "output_tokens": 5, **ENDED}
CHUNKS = {"output_tokens": 5, "estimated": True, **ENDED}


def whole(**more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "so"}, "finish_reason": "stop"}
    return json.dumps({"id": "c-1", "object": "chat.completion", "model": "big", "choices": [choice], **more}).encode()


def message(usage: Any, stop: str | None = None) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "big", "stop_reason": stop, "usage": usage}


def delta(**fields: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


def response(status: str, usage: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "status": status,
        "model": "big",
        "output": [],
        "usage": usage,
        **more,
    }


RESPONSES_USED = {
    "input_tokens": 11, "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 16,
}  # fmt: skip
RESPONSES_SAY = {"input_tokens": 11, "output_tokens": 5, "cached_tokens": 4, "reasoning_tokens": 2}
SPOKEN = [{"type": "response.output_text.delta", "sequence_number": n, "delta": f" w{n}"} for n in range(5)]
BEGUN = [
    {"type": "response.created", "response": response("in_progress", None)},
    {"type": "response.in_progress", "response": response("in_progress", None)},
]
CACHED_MESSAGE = {
    "input_tokens": 3, "cache_read_input_tokens": 6, "cache_creation_input_tokens": 2, "output_tokens": 1,
}  # fmt: skip
SAID = [delta(type="thinking_delta", thinking="hm"), delta(type="signature_delta", signature="c2ln"),
        *(delta(type="text_delta", text=f" w{number}") for number in range(4))]  # fmt: skip
MESSAGE_ENDS = {"done": True, "finish_reasons": ("end_turn",), "response_model": "big"}
NATIVE = [{"index": 0, "content": f" w{n}", "stop": False, "tokens_predicted": n + 1, "tokens_evaluated": 11}
          for n in range(5)]  # fmt: skip
NATIVE_END = {"index": 0, "content": "", "stop": True, "model": "big", "stop_type": "eos", "tokens_predicted": 5,
              "tokens_evaluated": 11, "tokens_cached": 15, "timings": TIMINGS}  # fmt: skip
VLLM_METRICS = {"time_to_first_token_ms": 250.0, "generation_time_ms": 500.0,
                "speculative_decoding": {"num_draft_tokens": 6, "num_accepted_draft_tokens": 3}}  # fmt: skip


def messages_stream(opening: dict[str, Any], closing: dict[str, Any]) -> bytes:
    return typed(
        {"type": "message_start", "message": message(opening)},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *SAID,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": closing},
        {"type": "message_stop"},
    )


STREAMS = (
    Answer("chat, usage at the end", CHAT, stream(*TALK, STOP, totals(USED)), PLAIN),
    Answer("OpenAI's nulls", CHAT, stream(*({**one, "usage": None} for one in (*TALK, STOP)), totals(USED)), PLAIN),
    Answer(
        "chat, details of a cache and of thoughts",
        CHAT,
        stream(
            ROLE,
            *(piece({"reasoning_content": "hm"}) for _ in range(2)),
            *WORDS[:3],
            STOP,
            totals(
                {
                    **USED,
                    "prompt_tokens_details": {"cached_tokens": 4},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            ),
        ),
        {**PLAIN, "cached_tokens": 4, "reasoning_tokens": 2},
    ),
    Answer(
        "SGLang's reasoning tokens",
        CHAT,
        stream(*TALK, STOP, totals({**USED, "reasoning_tokens": 2})),
        {**PLAIN, "reasoning_tokens": 2},
    ),
    Answer(
        "OpenAI's predicted outputs",
        CHAT,
        stream(
            *TALK,
            STOP,
            totals(
                {
                    **USED,
                    "completion_tokens_details": {"accepted_prediction_tokens": 3, "rejected_prediction_tokens": 3},
                }
            ),
        ),
        {**PLAIN, "draft_tokens": 6, "accepted_tokens": 3},
    ),
    Answer(
        "vLLM's metrics",
        CHAT,
        stream(*TALK, STOP, totals(USED, metrics=VLLM_METRICS)),
        {**PLAIN, "draft_tokens": 6, "accepted_tokens": 3, "prefill_s": 0.25, "decode_s": 0.5},
    ),
    Answer(
        "continuous usage: it grows, nothing is summed",
        CHAT,
        stream(
            *({**one, "usage": {"prompt_tokens": 11, "completion_tokens": number}} for number, one in enumerate(TALK)),
            {**STOP, "usage": USED},
            totals(USED),
        ),
        PLAIN,
    ),
    Answer(
        "continuous usage, cut short",
        CHAT,
        stream(
            *({**one, "usage": {"prompt_tokens": 11, "completion_tokens": number}} for number, one in enumerate(TALK)),
            done=False,
        ),
        {"input_tokens": 11, "output_tokens": 5, "done": False, "response_model": "big"},
    ),
    Answer(
        "llama.cpp's timings on the last chunk", CHAT, stream(*TALK, {**STOP, "timings": TIMINGS}), {**TIMED, **ENDED}
    ),
    Answer(
        "old llama.cpp: what was cached is not said",
        CHAT,
        stream(*TALK, {**STOP, "timings": {"prompt_n": 7, "predicted_n": 5}}),
        {"output_tokens": 5, **ENDED},
    ),
    Answer("no usage", CHAT, stream(*TALK, STOP), CHUNKS),
    Answer("null usage after what was said", CHAT, stream(*TALK, {**STOP, "usage": USED}, totals(None)), PLAIN),
    Answer("null usage", CHAT, stream(*TALK, STOP, totals(None)), CHUNKS),
    Answer(
        "usage of nothing",
        CHAT,
        stream(
            *TALK,
            STOP,
            totals(
                {
                    "prompt_tokens": 0,
                    "completion_tokens": 0,
                    "total_tokens": 0,
                    "prompt_tokens_details": {"cached_tokens": 0},
                }
            ),
        ),
        CHUNKS,
    ),
    Answer(
        "nonsense for usage",
        CHAT,
        stream(
            *TALK,
            STOP,
            totals({"prompt_tokens": -1, "completion_tokens": "5", "total_tokens": 1e9, "prompt_tokens_details": [4]}),
        ),
        CHUNKS,
    ),
    Answer("without [DONE]", CHAT, stream(*TALK, STOP, totals(USED), done=False), {**PLAIN, "done": False}),
    Answer(
        "two choices",
        CHAT,
        stream(ROLE, *WORDS[:2], piece({"content": "x"}, index=1), piece(finish="length", index=1), STOP, totals(USED)),
        {**PLAIN, "finish_reasons": ("stop", "length")},
    ),
    Answer(
        "a tool call only",
        CHAT,
        stream(
            ROLE,
            piece({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}),
            piece({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
            piece(finish="tool_calls"),
        ),
        {"output_tokens": 2, "estimated": True, **ENDED, "finish_reasons": ("tool_calls",)},
    ),
    Answer(
        "an error under status 200",
        CHAT,
        stream(*TALK, {"error": {"message": "boom", "code": 500}}),
        {**CHUNKS, "finish_reasons": (), "failed": True},
    ),
    Answer(
        "an engine that aborted",
        CHAT,
        stream(*TALK, piece(finish="abort"), totals(USED)),
        {**PLAIN, "finish_reasons": ("abort",), "failed": True},
    ),
    Answer("lines that end in CR LF", CHAT, stream(*TALK, STOP, totals(USED), eol="\r\n"), PLAIN),
    Answer(
        "comments, names, numbers and data in several lines",
        CHAT,
        b": hello\n\n"
        + event(ROLE, "chunk")
        + b"".join(b"id: 3\n: beep\n" + event(one) for one in WORDS)
        + b":\n\n\n"
        + b"data: "
        + json.dumps(STOP, indent=1).replace("\n", "\ndata:").encode()
        + b"\n\n"
        + b"retry: 10\n\n"
        + event(totals(USED))
        + b"data:[DONE]\n\n",
        PLAIN,
    ),
    Answer("no empty line after the last event", CHAT, stream(*TALK, STOP, totals(USED)).rstrip(b"\n"), PLAIN),
    Answer("a chunk that is no JSON", CHAT, event("{oops") + stream(*TALK, STOP, totals(USED)), PLAIN),
    Answer("a chunk of 1 MiB", CHAT, stream(ROLE, piece({"content": "x" * 2**20}), *WORDS[1:], STOP), CHUNKS),
    Answer(
        "all kinds of letters",
        CHAT,
        b"".join(
            b"data: " + json.dumps(piece({"content": word}), ensure_ascii=False).encode() + b"\n\n"
            for word in ("é☃", '"', "\\", "\n\n", "data: [DONE]")
        )
        + stream(STOP),
        CHUNKS,
    ),
    Answer(
        "legacy completions",
        COMPLETIONS,
        stream(
            *({**piece(), "choices": [{"index": 0, "text": f" w{n}", "finish_reason": None}]} for n in range(5)),
            {**piece(), "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
        ),
        CHUNKS,
    ),
    Answer(
        "responses",
        RESPONSES,
        typed(*BEGUN, *SPOKEN, {"type": "response.completed", "response": response("completed", RESPONSES_USED)}),
        {**RESPONSES_SAY, **ENDED, "finish_reasons": ("completed",)},
    ),
    Answer(
        "responses that are incomplete, in llama.cpp's manner",
        RESPONSES,
        typed(
            *BEGUN,
            *SPOKEN,
            {
                "type": "response.incomplete",
                "response": response(
                    "incomplete", None, incomplete_details={"reason": "max_output_tokens"}, timings=TIMINGS
                ),
            },
        ),
        {**TIMED, **ENDED, "finish_reasons": ("max_output_tokens",)},
    ),
    Answer(
        "responses that failed",
        RESPONSES,
        typed(*BEGUN, *SPOKEN, {"type": "response.failed", "response": response("failed", None)}),
        {**CHUNKS, "finish_reasons": ("failed",), "failed": True},
    ),
    Answer(
        "responses with an end of 1 MiB",
        RESPONSES,
        typed(
            *BEGUN,
            *SPOKEN,
            {
                "type": "response.completed",
                "response": {**response("completed", None), "output": ["x" * 2**20], "usage": RESPONSES_USED},
                "sequence_number": 9,
            },
        ),
        {**RESPONSES_SAY, **ENDED, "finish_reasons": ("completed",)},
    ),
    Answer(
        "messages",
        MESSAGES,
        messages_stream(CACHED_MESSAGE, {"output_tokens": 5}),
        {"input_tokens": 11, "cached_tokens": 6, "output_tokens": 5, **MESSAGE_ENDS},
    ),
    Answer(
        "messages of vLLM, which says the input twice",
        MESSAGES,
        messages_stream({"input_tokens": 11, "output_tokens": 0}, {"input_tokens": 11, "output_tokens": 5}),
        {"input_tokens": 11, "output_tokens": 5, **MESSAGE_ENDS},
    ),
    Answer(
        "messages cut short: what the opening says of output is no count",
        MESSAGES,
        messages_stream(CACHED_MESSAGE, {"output_tokens": 5}).partition(b"event: content_block_stop")[0],
        {
            "input_tokens": 11,
            "cached_tokens": 6,
            "output_tokens": 5,
            "estimated": True,
            "done": False,
            "response_model": "big",
        },
    ),
    Answer(
        "llama.cpp's own route",
        "/completion",
        stream(*NATIVE, NATIVE_END, done=False),
        {**TIMED, **ENDED, "finish_reasons": ("eos",)},
    ),
    Answer(
        "llama.cpp's own route, cut short",
        "/infill",
        stream(*NATIVE[:3], done=False),
        {"input_tokens": 11, "output_tokens": 3, "done": False},
    ),
)
