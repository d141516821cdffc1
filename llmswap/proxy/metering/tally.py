"""What has been learnt of one answer so far, event by event or from its whole body. Pure: no clock, no bytes."""

from typing import Any

from llmswap.proxy.metering import words
from llmswap.proxy.metering.words import Counts, Messages, Object, a_count, an_object, short_text
from llmswap.runtime.observing import Usage

_CHOICES_MAX = 64
_BESIDES = ("reasoning_content", "reasoning", "tool_calls", "function_call", "refusal", "audio")
_DELTAS = ("text", "thinking", "partial_json")
_LAST = frozenset(("response.completed", "response.incomplete", "response.failed", "image_generation.completed"))
_ABORTED = "abort"
# What engines say beyond `usage`: most answers have none of it, and are not searched for each.
_OF_ENGINE = frozenset(("timings", "metrics", "prompt_eval_duration", "eval_duration"))
_OF_NATIVE = frozenset(("tokens_evaluated", "tokens_predicted", "prompt_eval_count", "eval_count"))


class Tally:
    """Takes parsed JSON, gives a Usage.

    Attributes:
        done: The stream has ended as its dialect says; None as long as it has shown no dialect.
        failed: An error event came under status 200, or the engine aborted.
        rides: Usage came with content: the engine sends it whether or not it is asked to.
        timed: llama.cpp's timings came.
    """

    __slots__ = (
        "_messages", "_native", "_reasons", "_timings", "_usage",
        "decode_s", "done", "failed", "model", "prefill_s", "rides", "timed",
    )  # fmt: skip

    def __init__(self) -> None:
        self._usage: Counts = {}
        self._native: Counts = {}
        self._timings: Counts = {}
        self._messages: Messages | None = None
        self._reasons: dict[int, str] = {}
        self.model: str | None = None
        self.prefill_s: float | None = None
        self.decode_s: float | None = None
        self.done: bool | None = None
        self.failed = False
        self.rides = False
        self.timed = False

    @property
    def finished(self) -> bool:
        """Whether a choice has been finished."""
        return bool(self._reasons)

    @property
    def counted(self) -> bool:
        """Whether the engine has said how many tokens it generated."""
        return any("output_tokens" in said for said in (self._usage, self._native, self._timings))

    def event(self, data: Object) -> object:
        """Take one event of a stream.

        Returns:
            Its content, if it has some: text, thoughts, or (a part of) a tool call.
        """
        choices, kind = data.get("choices"), data.get("type")
        content: object = None
        if isinstance(choices, list):
            self._begun()
            content = self._choices(choices, "delta")
            self.rides = self.rides or bool(choices and data.get("usage"))
        elif isinstance(kind, str):
            content = self._typed(kind, data)
        elif "content" in data and "stop" in data:
            content = self._natively(data)
        if data.get("error"):
            self.failed = True
        self.totals(data)
        return content

    def end(self) -> None:
        """Take `[DONE]`."""
        self.done = True

    def totals(self, data: Object) -> None:
        """Take what the top of an event or a body says of the whole answer."""
        if self.model is None:
            self.model = short_text(data.get("model"))
        said = data.get("usage")
        if said and isinstance(said, dict):
            self._usage.update(words.usage(said))
        if not _OF_ENGINE.isdisjoint(data):
            self._engine(data)

    def body(self, data: Any) -> None:  # noqa: ANN401
        """Take a whole body: an object, or llama.cpp's array of them, one for each prompt."""
        if isinstance(data, list):
            self._bodies([item for item in data if isinstance(item, dict)])
            return
        data = an_object(data)
        choices = data.get("choices")
        if isinstance(choices, list):
            self.totals(data)
            content = self._choices(choices, "message")
        elif data.get("type") == "message":
            self._message(data)
            content = data.get("content")
        else:
            self.totals(data)
            content = data.get("content") or data.get("output") or data.get("text")
            self._without_choices(data)
        if content:
            self.had_content()

    def _without_choices(self, data: Object) -> None:
        if data.get("object") == "response":
            self._response_status(data)
        elif "content" in data and "stop" in data:
            self._natively(data)
        if meta := an_object(data.get("meta")):
            self._usage.update(words.billed(meta))
        if not _OF_NATIVE.isdisjoint(data):
            self._native.update(words.native(data))

    def had_content(self) -> None:
        """Note that something was generated: who says that it took no token has not counted."""
        for said in (self._usage, self._native, self._timings):
            if said.get("output_tokens") == 0:
                del said["output_tokens"]

    def usage(self) -> Usage:
        """Give what is known by now."""
        reasons = self._reasons
        counts: dict[str, Any] = {**self._timings, **self._native, **self._usage}
        return Usage(
            **counts,
            done=self.done,
            prefill_s=self.prefill_s,
            decode_s=self.decode_s,
            failed=self.failed,
            response_model=self.model,
            finish_reasons=tuple(map(reasons.__getitem__, sorted(reasons))),
        )

    def _begun(self) -> None:
        if self.done is None:
            self.done = False

    def _engine(self, data: Object) -> None:
        if said := an_object(data.get("timings")):
            self.timed = True
            self._timings.update(words.timings(said))
        if said := an_object(data.get("metrics")):
            self._timings.update(words.metrics(said))
        prefill_s, decode_s = words.times(data)
        self.prefill_s = self.prefill_s if prefill_s is None else prefill_s
        self.decode_s = self.decode_s if decode_s is None else decode_s

    def _finish(self, reason: object, index: int = 0) -> None:
        if (text := short_text(reason)) and len(self._reasons) < _CHOICES_MAX:
            self._reasons[index] = text
            self.failed = self.failed or text == _ABORTED

    def _choices(self, choices: list[Any], part: str) -> object:
        content: object = None
        for number, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            if reason := choice.get("finish_reason"):
                index = a_count(choice.get("index"))
                self._finish(reason, number if index is None else index)
            said = choice.get(part)
            if not content and said and isinstance(said, dict):
                content = said.get("content") or next((found for name in _BESIDES if (found := said.get(name))), None)
            content = content or choice.get("text")
        return content

    def _natively(self, data: Object) -> object:
        self._begun()
        self._native.update(words.native(data))
        if data["stop"] is True:
            self.done = True
            self._finish(data.get("stop_type"), a_count(data.get("index")) or 0)
        return data["content"]

    def _bodies(self, items: list[Object]) -> None:
        totals: Counts = {}
        for number, item in enumerate(items):
            one = Tally()
            one.body(item)
            for name, count in {**one._timings, **one._native, **one._usage}.items():
                totals[name] = totals.get(name, 0) + count
            self.model = self.model or one.model
            for reason in one._reasons.values():
                self._finish(reason, number)
        self._usage.update(totals)

    def _typed(self, kind: str, data: Object) -> object:
        if kind.startswith("response."):
            self._begun()
            if "response" in data:
                self._response(kind, an_object(data["response"]))
        elif kind.startswith(("message_", "content_block_")) or kind == "error":
            return self._messages_event(kind, data)
        elif kind.startswith(("transcript.", "speech.", "image_")):
            self._begun()
            self.done = self.done or kind.endswith(".done") or kind in _LAST
        return data.get("delta") if kind.endswith(".delta") else None

    def _messages_event(self, kind: str, data: Object) -> object:
        self._begun()
        delta = an_object(data.get("delta"))
        if kind == "content_block_delta":
            return next((found for name in _DELTAS if (found := delta.get(name))), None)
        if kind == "content_block_start":
            block = an_object(data.get("content_block"))
            return block.get("name") if str(block.get("type", "")).endswith("tool_use") else None
        if kind == "message_start":
            self._message(an_object(data.get("message")), opening=True)
        elif kind == "message_delta":
            self._finish(delta.get("stop_reason"))
            self._of_messages(data.pop("usage", None))
        elif kind == "message_stop":
            self.done = True
        else:
            self.failed = self.failed or kind == "error"
        return None

    def _message(self, message: Object, *, opening: bool = False) -> None:
        self._of_messages(message.get("usage"), opening=opening)
        self._finish(message.get("stop_reason"))
        self.model = self.model or short_text(message.get("model"))

    def _of_messages(self, said: object, *, opening: bool = False) -> None:
        self._messages = self._messages or Messages()
        self._usage.update(self._messages.take(an_object(said), opening=opening))

    def _response(self, kind: str, response: Object) -> None:
        self.totals(response)
        if kind in _LAST:
            self.done = True
            self._response_status(response)

    def _response_status(self, response: Object) -> None:
        status = response.get("status")
        why = an_object(response.get("incomplete_details")).get("reason")
        self._finish(why or status)
        self.failed = self.failed or status == "failed"
