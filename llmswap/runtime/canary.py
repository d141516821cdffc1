"""A few tokens asked of an engine: after a wake they warm it up, and show whether it still says what it said before.

An engine whose weights or KV cache came back wrong answers garbage under 200, and nothing else about it tells. So it is
asked the same question while it is surely well, before its first sleep, and after each wake; greedily, alone, and for
something that no model is in doubt about, so that a healthy one says the same again.
"""

from collections.abc import Callable

import orjson

from llmswap.runtime.control import Answer, Control, NoAnswer

TIMEOUT_S = 60.0
# The first comes out of the prompt alone; what a KV cache has kept wrongly shows from the second on.
_CANARY_TOKENS = 8
_COUNTING = "Count to twenty. 1, 2, 3, 4, 5, 6, 7,"
# The engine does not serve this; any other answer from 500 on says that it cannot serve.
_NOT_SERVED = frozenset({501})


class CanaryDied(Exception):
    """The engine could not answer, or not as it did before; the message is a line of our own words.

    Attributes:
        lost: The connection broke: perhaps the process is about to be found dead, which says more.
    """

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class Canary:
    """Asks one engine, by its completions or, where it has none, its chat.

    Args:
        note: Told, in words that follow the model's name, what could not be done.
    """

    def __init__(self, control: Control, note: Callable[[str], None]) -> None:
        self._control = control
        self._note = note
        self._known: str | None = None  # what it said while it was surely well

    async def learn(self) -> None:
        """Hear it once in this life, before its first sleep.

        Raises:
            CanaryDied: It could not answer.
        """
        if self._known is None:
            self._known = await self._ask(_CANARY_TOKENS)

    async def hear(self, *, compare: bool) -> None:
        """Have it generate: the same again, or a single token.

        Raises:
            CanaryDied: It could not answer, or said something else than before its first sleep.
        """
        if not compare or self._known is None:
            await self._ask(1)
        elif (said := await self._ask(_CANARY_TOKENS)) is not None and said != self._known:
            raise CanaryDied("it answers a question otherwise than before it slept: what it woke with is garbage")

    async def _ask(self, tokens: int) -> str | None:
        """Give what it says; None if it serves no text. An engine that serves none is left as it is."""
        model = await self._served_name()
        asked = {"model": model, "max_tokens": tokens, "temperature": 0}
        for path, question in (
            ("/v1/completions", {"prompt": _COUNTING}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": _COUNTING}]}),
        ):
            answer = await self._call("POST", path, orjson.dumps(asked | question).decode()) if model else None
            if answer is not None and answer.good:
                return _said(answer)
        self._note("it cannot be warmed up, or heard: it serves no completions")
        return None

    async def _served_name(self) -> str | None:
        answer = await self._call("GET", "/v1/models")
        try:
            name = orjson.loads(answer.body)["data"][0]["id"] if answer.good else None
        except (ValueError, LookupError, TypeError):
            return None
        return name if isinstance(name, str) else None

    async def _call(self, method: str, path: str, body: str = "") -> Answer:
        try:
            answer = await self._control.ask(method, path, body, timeout_s=TIMEOUT_S)
        except NoAnswer as error:
            raise CanaryDied(f"a request for a few tokens: it {error}: {method} {path}", lost=error.lost) from error
        if answer.status >= 500 and answer.status not in _NOT_SERVED:
            raise CanaryDied(f"a request for a few tokens was answered {answer.status}: {method} {path}")
        return answer


def _said(answer: Answer) -> str | None:
    """Give the words of an answer, thoughts included; None if there are none, or it has another shape."""
    try:
        choice = orjson.loads(answer.body)["choices"][0]
        message = choice.get("message") or {}
        parts = (choice.get("text"), *(message.get(key) for key in ("reasoning_content", "reasoning", "content")))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return "".join(part for part in parts if isinstance(part, str)) or None
