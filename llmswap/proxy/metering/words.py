"""What engines say of an answer, in their words, as numbers in ours. Pure: parsed JSON in.

Whatever is absent, null or no sane count is unknown. A prompt of no tokens is no prompt: who says that it had none has
not counted, and is not believed in anything.
"""

from typing import Any

Object = dict[str, Any]
Counts = dict[str, int]
"""Fields of `Usage` with what was said of them."""

_SANE_MAX = 1 << 48
_DETAILS = frozenset(
    (
        "prompt_tokens_details",
        "input_tokens_details",
        "completion_tokens_details",
        "output_tokens_details",
        "reasoning_tokens",
    )
)
_TEXT_MAX = 128


def an_object(value: object) -> Object:
    """Give it if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def a_count(value: object) -> int | None:
    """Give it if it can be a number of tokens."""
    return value if type(value) is int and 0 <= value < _SANE_MAX else None


def seconds(value: object, per_s: float) -> float | None:
    """Give a duration in seconds, from so many units a second."""
    return value / per_s if type(value) in (int, float) and 0 <= value < _SANE_MAX else None  # type: ignore[operator]


def short_text(value: object) -> str | None:
    """Give it if it is text, shortened."""
    return value[:_TEXT_MAX] if isinstance(value, str) and value else None


def usage(said: Object) -> Counts:
    """Read `usage` of OpenAI's APIs: chat, completions, responses, embeddings, rerank, transcriptions, images."""
    prompt = _first(said, "prompt_tokens", "input_tokens")
    answer = _first(said, "completion_tokens", "output_tokens")
    if prompt is None and answer is None:
        prompt = a_count(said.get("total_tokens"))  # rerankers count nothing else
    if prompt == 0:
        return {}
    if _DETAILS.isdisjoint(said):  # mostly
        if prompt is not None and answer is not None:
            return {"input_tokens": prompt, "output_tokens": answer}
        return _known(input_tokens=prompt, output_tokens=answer)
    prompt_details = an_object(said.get("prompt_tokens_details") or said.get("input_tokens_details"))
    details = an_object(said.get("completion_tokens_details") or said.get("output_tokens_details"))
    reasoning = _first(details, "reasoning_tokens")
    accepted, rejected = (a_count(details.get(f"{fate}_prediction_tokens")) for fate in ("accepted", "rejected"))
    return _known(
        input_tokens=prompt,
        output_tokens=answer,
        cached_tokens=a_count(prompt_details.get("cached_tokens")),
        reasoning_tokens=a_count(said.get("reasoning_tokens")) if reasoning is None else reasoning,
        draft_tokens=None if accepted is None or rejected is None else accepted + rejected,
        accepted_tokens=accepted,
    )


class Messages:
    """`usage` of Anthropic's messages: cumulative, in several events, and its input excludes what concerns a cache."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: Counts = {}

    def take(self, said: Object, *, opening: bool = False) -> Counts:
        """Read what an event says, in addition to earlier ones. The output that an opening names is a placeholder."""
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            if (count := a_count(said.get(name))) is not None:
                self._said[name] = count
        whole = sum(self._said.values()) if "input_tokens" in self._said else None
        output = None if opening else a_count(said.get("output_tokens"))
        if whole == 0:
            return {}
        return _known(input_tokens=whole, output_tokens=output, cached_tokens=self._said.get("cache_read_input_tokens"))


def timings(said: Object) -> Counts:
    """Read llama.cpp's `timings`: `prompt_n` excludes what was cached, so without `cache_n` the prompt is unknown."""
    cached, fresh = a_count(said.get("cache_n")), a_count(said.get("prompt_n"))
    return _known(
        input_tokens=None if cached is None or fresh is None else (cached + fresh) or None,
        output_tokens=a_count(said.get("predicted_n")),
        cached_tokens=cached,
        **_drafts(said, "draft_n", "draft_n_accepted"),
    )


def native(said: Object) -> Counts:
    """Read what llama.cpp's own routes, or Ollama's, say at the top of an answer."""
    return _known(
        input_tokens=_first(said, "tokens_evaluated", "prompt_eval_count") or None,
        output_tokens=_first(said, "tokens_predicted", "eval_count"),
    )


def metrics(said: Object) -> Counts:
    """Read vLLM's `metrics`, as far as they count."""
    return _known(
        **_drafts(an_object(said.get("speculative_decoding")), "num_draft_tokens", "num_accepted_draft_tokens")
    )


def billed(meta: Object) -> Counts:
    """Read `meta` of rerankers that speak like Cohere's."""
    said = an_object(meta.get("tokens") or meta.get("billed_units"))
    return usage({"input_tokens": said.get("input_tokens"), "output_tokens": said.get("output_tokens")})


def times(answer: Object) -> tuple[float | None, float | None]:
    """Give the seconds that the prompt took and that the answer took, as far as the engine says."""
    named = an_object(answer.get("timings"))
    if named:
        return seconds(named.get("prompt_ms"), 1e3), seconds(named.get("predicted_ms"), 1e3)
    named = an_object(answer.get("metrics"))
    if named:
        return seconds(named.get("time_to_first_token_ms"), 1e3), seconds(named.get("generation_time_ms"), 1e3)
    return seconds(answer.get("prompt_eval_duration"), 1e9), seconds(answer.get("eval_duration"), 1e9)


def _drafts(said: Object, proposed: str, taken: str) -> dict[str, int | None]:
    return {"draft_tokens": a_count(said.get(proposed)), "accepted_tokens": a_count(said.get(taken))}


def _first(said: Object, *names: str) -> int | None:
    for name in names:
        count = a_count(said.get(name))
        if count is not None:
            return count
    return None


def _known(**counts: int | None) -> Counts:
    return {name: count for name, count in counts.items() if count is not None}
