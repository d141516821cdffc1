"""Calls as HTTP: which address, which headers, which body; and what the events of a stream say."""

import json
from dataclasses import dataclass, field
from random import Random

from loadtests.script import Actor, Call

TOKENS_MAX = 4000
BOUNDARY = "a-load-test-s-boundary"
SAMPLE_RATE = 8000


@dataclass(frozen=True, slots=True)
class Wire:
    """One request.

    Attributes:
        tokens: As many are asked for.
        streams: Its answer is a stream of events.
        holds_s: It is a websocket, held open for so many real seconds; None for an ordinary request.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    tokens: int = 0
    streams: bool = False
    holds_s: float | None = None


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and how calls become requests for this target.

    Attributes:
        models: The scenario's names of models -> the target's, where they differ.
        real_s: Real seconds for one of the scenario.
        tokens_per_s: Tokens asked for per real second that an answer is to take.
        api_key: Sent as a bearer token; empty for none.
    """

    models: dict[str, str]
    real_s: float
    tokens_per_s: float
    api_key: str = ""

    def wire(self, call: Call, actor: Actor, number: int, *, known: bool, trace: str) -> Wire:
        """Write a call down.

        Args:
            call: What is wanted.
            actor: Who calls.
            number: Of the call, among the caller's.
            known: The model has answered this caller before.
            trace: A traceparent; empty for none.
        """
        model = call.made_up or self.models.get(call.model, call.model)
        tokens = max(1, min(TOKENS_MAX, round(call.takes_s * self.real_s * self.tokens_per_s)))
        headers = {"X-LLMSwap-Caller": actor.name, "X-Fake-Takes": f"{call.takes_s:.6f}", "Accept-Encoding": "identity"}
        if call.swap_class != "may-swap":
            headers["X-LLMSwap-Swap"] = call.swap_class
        if call.cold_s:
            headers["X-Fake-Cold"] = f"{actor.number} {call.cold_s if known else 0.0:.6f}"
        if trace:
            headers["traceparent"] = trace
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        words = f"{actor.name} {actor.number}, call {number}: go on"
        if call.api == "props":
            return Wire("GET", f"/upstream/{model}/props", headers, None)
        if call.api == "socket":
            return Wire("GET", f"/upstream/{model}/ws", headers, None, holds_s=call.takes_s * self.real_s)
        if call.api == "transcription":
            headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
            return Wire("POST", "/v1/audio/transcriptions", headers, _recording(model))
        path, body = _body(call.api, model, words, tokens)
        headers["Content-Type"] = "application/json"
        return Wire("POST", path, headers, json.dumps(body).encode(), tokens, bool(body.get("stream")))


def _body(api: str, model: str, words: str, tokens: int) -> tuple[str, dict[str, object]]:
    """Give address and body of an API that takes JSON."""
    match api:
        case "completion":
            return "/v1/completions", {"model": model, "prompt": words, "max_tokens": tokens, "stream": True}
        case "embeddings":
            return "/v1/embeddings", {"model": model, "input": words}
        case "rerank":
            return "/v1/rerank", {"model": model, "query": words, "documents": [words, "something else"]}
        case "speech":
            return "/v1/audio/speech", {"model": model, "input": words, "voice": "alloy"}
        case "image":
            return "/v1/images/generations", {"model": model, "prompt": words, "n": 1}
        case _:
            messages = [{"role": "user", "content": words}]
            body: dict[str, object] = {"model": model, "messages": messages, "max_tokens": tokens}
            return "/v1/chat/completions", body | ({"stream": True} if api == "chat" else {})


def _recording(model: str) -> bytes:
    """Write the form that goes with a tenth of a second of silence."""
    sound = bytes(SAMPLE_RATE // 10 * 2)
    parts = (('name="model"', model.encode()), ('name="file"; filename="voice.wav"', sound))
    form = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    return form + f"--{BOUNDARY}--\r\n".encode()


def new_trace(rng: Random) -> tuple[str, str]:
    """Make a trace that is to be sampled: its id and its traceparent."""
    trace = f"{rng.getrandbits(128):032x}"
    return trace, f"00-{trace}-{rng.getrandbits(64):016x}-01"


@dataclass(slots=True)
class Stream:
    """The events of one answer, as they come.

    Attributes:
        pieces: Events with content, thoughts or a tool call.
        first_s, last_s: When the first and the last of them came.
        gap_max_s: The longest time between two of them.
        done: The stream has said that it is complete.
        error: What an error within it says of itself.
    """

    pieces: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    gap_max_s: float = 0.0
    done: bool = False
    error: str = ""
    _data: list[bytes] = field(default_factory=list)

    def line(self, line: bytes, now_s: float) -> None:
        """Take one line, its end included."""
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif not line.strip() and self._data:
            self._event(b"\n".join(self._data), now_s)
            self._data.clear()

    @property
    def gap_mean_s(self) -> float | None:
        """The mean time between two pieces; None if there are not two."""
        return (self.last_s - self.first_s) / (self.pieces - 1) if self.pieces > 1 else None

    def _event(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            self.error = self.error or "an event is not JSON"
            return
        if isinstance(event, dict) and event.get("error"):
            self.error = self.error or error_code(event)
        if not _has_content(event):
            return
        if self.pieces:
            self.gap_max_s = max(self.gap_max_s, now_s - self.last_s)
        else:
            self.first_s = now_s
        self.pieces, self.last_s = self.pieces + 1, now_s


def _has_content(event: object) -> bool:
    choices = event.get("choices") if isinstance(event, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    said = (delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls")) if delta else ()
    return bool(choice.get("text")) or any(said)


def error_code(body: object) -> str:
    """Say what kind of error a body tells of, in one word; its message may quote a prompt, and is left alone."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        word = error.get("code") or error.get("type")
        return str(word)[:40] if isinstance(word, str | int) else "error"
    return "error"
