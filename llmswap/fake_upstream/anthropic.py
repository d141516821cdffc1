"""Anthropic's messages: a thinking block if there are thoughts, then a text block."""

from collections.abc import Iterable
from typing import Any, ClassVar

from aiohttp import web

from llmswap.fake_upstream.dialect import conversation
from llmswap.fake_upstream.generation import Run
from llmswap.fake_upstream.sse import Event
from llmswap.fake_upstream.state import json_response, read_json
from llmswap.fake_upstream.tokens import tokenize
from llmswap.fake_upstream.usage import UsageStyle

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "abort": "end_turn"}
SIGNATURE = "c2ltdWxhdGVk"


class Messages:
    """`/v1/messages`."""

    limits: ClassVar[tuple[str, ...]] = ("max_tokens",)

    def __init__(self, body: dict[str, Any], run: Run, style: UsageStyle, persona: str) -> None:
        del body
        self.run, self.style, self.persona = run, style, persona
        self._blocks: list[str] = []

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        """Give the conversation after the system prompt."""
        return conversation(body.get("messages"), body.get("system"))

    def opening(self) -> Iterable[Event]:
        """The message with its input counted; output is a placeholder here."""
        message = self._message([], None)
        self.style.attach(message, self.style.anthropic(self.run))
        yield self._event("message_start", message=message)
        yield self._event("ping")

    def token(self, text: str, *, thought: bool) -> Iterable[Event]:
        """One delta a token; the first of its kind begins a block."""
        kind = "thinking" if thought else "text"
        if kind not in self._blocks:
            yield from self._stop_block()
            self._blocks.append(kind)
            empty = {"type": kind, kind: ""} | ({"signature": ""} if thought else {})
            yield self._event("content_block_start", index=len(self._blocks) - 1, content_block=empty)
        delta = {"type": f"{kind}_delta", kind: text}
        yield self._event("content_block_delta", index=len(self._blocks) - 1, delta=delta)

    def closing(self) -> Iterable[Event]:
        """The block ends, the counts come, the message ends."""
        yield from self._stop_block()
        usage = self.style.anthropic(self.run)
        if self.persona == "llamacpp":
            usage = {"output_tokens": usage["output_tokens"]}
        delta = {"stop_reason": STOP_REASONS[self.run.finish], "stop_sequence": None}
        name, payload = "message_delta", {"type": "message_delta", "delta": delta}
        yield name, self.style.attach(payload, usage)
        yield self._event("message_stop")

    def failure(self, message: str) -> Iterable[Event]:
        """The error event; nothing follows it."""
        yield self._event("error", error={"type": "api_error", "message": message})

    def whole(self, thoughts: str, text: str) -> dict[str, Any]:
        """One body."""
        content = [{"type": "thinking", "thinking": thoughts, "signature": SIGNATURE}] if thoughts else []
        message = self._message([*content, {"type": "text", "text": text}], STOP_REASONS[self.run.finish])
        return self.style.attach(message, self.style.anthropic(self.run))

    def _event(self, name: str, **fields: object) -> Event:
        return name, {"type": name, **fields}

    def _stop_block(self) -> Iterable[Event]:
        if not self._blocks:
            return
        index = len(self._blocks) - 1
        if self._blocks[-1] == "thinking":
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            yield self._event("content_block_delta", index=index, delta=delta)
        yield self._event("content_block_stop", index=index)

    def _message(self, content: list[dict[str, str]], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_{self.run.key}",
            "type": "message",
            "role": "assistant",
            "model": self.run.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
        }


async def count_tokens(request: web.Request) -> web.Response:
    """`/v1/messages/count_tokens`."""
    prompt = Messages.prompt(await read_json(request))
    return json_response({"input_tokens": len(tokenize(prompt))})
