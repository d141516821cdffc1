"""OpenAI's Responses API: one message item (and one reasoning item before it, if there are thoughts)."""

from collections.abc import Iterable
from typing import Any, ClassVar

from llmswap.fake_upstream.dialect import conversation, now, text_of
from llmswap.fake_upstream.generation import Run
from llmswap.fake_upstream.sse import Event
from llmswap.fake_upstream.usage import UsageStyle

REASON_INCOMPLETE = {"length": "max_output_tokens"}


class Responses:
    """`/v1/responses`. Its streams end with the terminal event; there is no [DONE]."""

    limits: ClassVar[tuple[str, ...]] = ("max_output_tokens",)

    def __init__(self, body: dict[str, Any], run: Run, style: UsageStyle, persona: str) -> None:
        del persona
        self.run, self.style = run, style
        self._instructions = body.get("instructions")
        self._created = now()
        self._sequence = 0
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._opened: list[str] = []  # kinds of the items begun: reasoning, message

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        """Give the input, text or items, after the instructions."""
        given = body.get("input")
        if isinstance(given, list):
            return conversation(given, body.get("instructions"))
        return f"{text_of(body.get('instructions'))}\nuser: {text_of(given)}"

    def opening(self) -> Iterable[Event]:
        """Created, in progress: usage is null in both."""
        yield self._event("response.created", response=self._response("in_progress", []))
        yield self._event("response.in_progress", response=self._response("in_progress", []))

    def token(self, text: str, *, thought: bool) -> Iterable[Event]:
        """One delta a token; the first of its kind begins an item."""
        kind = "reasoning" if thought else "message"
        if kind not in self._opened:
            if self._opened:
                yield from self._finish_item()
            yield from self._begin_item(kind)
        (self._thoughts if thought else self._texts).append(text)
        name = "response.reasoning_text.delta" if thought else "response.output_text.delta"
        extra: dict[str, Any] = {} if thought else {"logprobs": []}
        yield self._event(name, **self._place(), content_index=0, delta=text, **extra)

    def closing(self) -> Iterable[Event]:
        """The last item ends, then the response."""
        if self._opened:
            yield from self._finish_item()
        status = "incomplete" if self.run.finish in REASON_INCOMPLETE else "completed"
        yield self._event(f"response.{status}", response=self._finished())

    def failure(self, message: str) -> Iterable[Event]:
        """The failed terminal event."""
        response = self._response("failed", []) | {"error": {"code": "server_error", "message": message}}
        yield self._event("response.failed", response=response)

    def whole(self, thoughts: str, text: str) -> dict[str, Any]:
        """One body."""
        if thoughts:
            self._opened.append("reasoning")
            self._thoughts.append(thoughts)
        self._opened.append("message")
        self._texts.append(text)
        return self._finished()

    def _event(self, name: str, **fields: object) -> Event:
        self._sequence += 1
        return name, {"type": name, "sequence_number": self._sequence - 1, **fields}

    def _place(self) -> dict[str, Any]:
        index = len(self._opened) - 1
        return {"item_id": self._item_id(self._opened[index]), "output_index": index}

    def _item_id(self, kind: str) -> str:
        return f"{'rs' if kind == 'reasoning' else 'msg'}_{self.run.key}"

    def _part(self, kind: str) -> dict[str, Any]:
        if kind == "reasoning":
            return {"type": "reasoning_text", "text": "".join(self._thoughts)}
        return {"type": "output_text", "text": "".join(self._texts), "annotations": [], "logprobs": []}

    def _item(self, kind: str, status: str) -> dict[str, Any]:
        content: list[dict[str, Any]] = [] if status == "in_progress" else [self._part(kind)]
        item: dict[str, Any] = {"id": self._item_id(kind), "type": kind, "status": status, "content": content}
        extra: dict[str, Any] = {"summary": []} if kind == "reasoning" else {"role": "assistant"}
        return item | extra

    def _begin_item(self, kind: str) -> Iterable[Event]:
        self._opened.append(kind)
        index = len(self._opened) - 1
        yield self._event("response.output_item.added", output_index=index, item=self._item(kind, "in_progress"))
        yield self._event("response.content_part.added", **self._place(), content_index=0, part=self._part(kind))

    def _finish_item(self) -> Iterable[Event]:
        kind = self._opened[-1]
        part = self._part(kind)
        name = "response.reasoning_text.done" if kind == "reasoning" else "response.output_text.done"
        extra: dict[str, Any] = {} if kind == "reasoning" else {"logprobs": []}
        yield self._event(name, **self._place(), content_index=0, text=part["text"], **extra)
        yield self._event("response.content_part.done", **self._place(), content_index=0, part=part)
        index = len(self._opened) - 1
        yield self._event("response.output_item.done", output_index=index, item=self._item(kind, "completed"))

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"resp_{self.run.key}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": self._instructions,
            "model": self.run.model,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }

    def _finished(self) -> dict[str, Any]:
        reason = REASON_INCOMPLETE.get(self.run.finish)
        output = [self._item(kind, "completed") for kind in self._opened]
        response = self._response("incomplete" if reason else "completed", output)
        if reason:
            response["incomplete_details"] = {"reason": reason}
        del response["usage"]
        self.style.attach(response, self.style.responses(self.run))
        return self.style.attach_timings(response, self.run)
