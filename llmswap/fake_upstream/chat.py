"""OpenAI chat completions and legacy completions (and llama.cpp's /infill, which answers much alike)."""

from collections.abc import Iterable
from typing import Any, ClassVar

from llmswap.fake_upstream.dialect import conversation, now, text_of
from llmswap.fake_upstream.generation import Run
from llmswap.fake_upstream.sse import Event
from llmswap.fake_upstream.usage import UsageStyle

DONE: Event = ("", "[DONE]")


class Completions:
    """`/v1/completions`."""

    limits: ClassVar[tuple[str, ...]] = ("max_tokens", "n_predict")
    id_prefix: ClassVar[str] = "cmpl"
    whole_object: ClassVar[str] = "text_completion"
    chunk_object: ClassVar[str] = "text_completion"

    def __init__(self, body: dict[str, Any], run: Run, style: UsageStyle, persona: str) -> None:
        self.run, self.style, self.persona = run, style, persona
        wishes = body.get("stream_options")
        wishes = wishes if isinstance(wishes, dict) else {}
        self.include_usage = bool(wishes.get("include_usage"))
        self.continuous = self.include_usage and bool(wishes.get("continuous_usage_stats"))
        self.base = {"id": f"{self.id_prefix}-{run.key}", "object": "", "created": now(), "model": run.model}

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        """Give the prompt."""
        return text_of(body.get("prompt"))

    def opening(self) -> Iterable[Event]:
        """Nothing comes before the text."""
        return ()

    def token(self, text: str, *, thought: bool) -> Iterable[Event]:  # noqa: ARG002 - legacy completions do not tell thoughts apart
        """One chunk a token."""
        yield self._chunk({"text": text})

    def closing(self) -> Iterable[Event]:
        """The finish chunk, the usage chunk if wanted, [DONE]."""
        yield self._chunk(self._empty_piece(), finish=self.run.finish, timings=not self.include_usage)
        if self.include_usage and self.style.spoil != "no":
            last = {**self.base, "object": self.chunk_object, "choices": []}
            yield "", self.style.attach_timings(self.style.attach(last, self.style.chat(self.run)), self.run)
        yield DONE

    def failure(self, message: str) -> Iterable[Event]:
        """An error chunk, then [DONE]."""
        yield "", {"error": {"message": message, "type": "InternalServerError", "param": None, "code": 500}}
        yield DONE

    def whole(self, thoughts: str, text: str) -> dict[str, Any]:
        """One body."""
        choice = {"index": 0, **self._whole_piece(thoughts, text), "logprobs": None, "finish_reason": self.run.finish}
        payload = {**self.base, "object": self.whole_object, "choices": [choice]}
        return self.style.attach_timings(self.style.attach(payload, self.style.chat(self.run)), self.run)

    def _chunk(self, piece: dict[str, Any], finish: str | None = None, *, timings: bool = False) -> Event:
        choice = {"index": 0, **piece, "logprobs": None, "finish_reason": finish}
        payload: dict[str, Any] = {**self.base, "object": self.chunk_object, "choices": [choice]}
        if self.continuous and self.persona in ("vllm", "sglang"):
            self.style.attach(payload, self.style.chat(self.run))
        elif self.include_usage and self.persona == "generic":
            payload["usage"] = None
        return "", self.style.attach_timings(payload, self.run) if timings else payload

    def _empty_piece(self) -> dict[str, Any]:
        return {"text": ""}

    def _whole_piece(self, thoughts: str, text: str) -> dict[str, Any]:
        return {"text": thoughts + text}


class Chat(Completions):
    """`/v1/chat/completions`."""

    limits: ClassVar[tuple[str, ...]] = ("max_completion_tokens", "max_tokens", "n_predict")
    id_prefix: ClassVar[str] = "chatcmpl"
    whole_object: ClassVar[str] = "chat.completion"
    chunk_object: ClassVar[str] = "chat.completion.chunk"

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        """Give the conversation."""
        return conversation(body.get("messages"))

    def opening(self) -> Iterable[Event]:
        """The chunk that only names the role."""
        yield self._chunk({"delta": {"role": "assistant", "content": "" if self.persona != "llamacpp" else None}})

    def token(self, text: str, *, thought: bool) -> Iterable[Event]:
        """One chunk a token; thoughts in `reasoning_content`."""
        yield self._chunk({"delta": {"reasoning_content" if thought else "content": text}})

    def _empty_piece(self) -> dict[str, Any]:
        return {"delta": {}}

    def _whole_piece(self, thoughts: str, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thoughts:
            message["reasoning_content"] = thoughts
        return {"message": message}


class Infill(Completions):
    """llama.cpp's `/infill`: the text between a prefix and a suffix."""

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        """Give what is around the hole."""
        return (
            f"{text_of(body.get('input_prefix'))}\n{text_of(body.get('prompt'))}\n{text_of(body.get('input_suffix'))}"
        )

    def token(self, text: str, *, thought: bool) -> Iterable[Event]:  # noqa: ARG002 - as legacy completions
        """One chunk a token, in llama.cpp's own shape."""
        yield "", {"index": 0, "content": text, "stop": False, "tokens_predicted": self.run.produced}

    def closing(self) -> Iterable[Event]:
        """The chunk with the totals; no [DONE] on llama.cpp's own routes."""
        yield "", self.whole("", "")

    def whole(self, thoughts: str, text: str) -> dict[str, Any]:
        """One body, in llama.cpp's own shape."""
        payload = {
            "index": 0,
            "content": thoughts + text,
            "stop": True,
            "model": self.run.model,
            "stop_type": "limit" if self.run.finish == "length" else "eos",
            "tokens_predicted": self.run.produced,
            "tokens_evaluated": self.run.prompt_tokens,
        }
        return self.style.attach_timings(payload, self.run)
