"""Token counts in each API's words."""

from dataclasses import dataclass
from typing import Any

from llmswap.fake_upstream.generation import Run


@dataclass(frozen=True, slots=True)
class UsageStyle:
    """How counts are reported.

    Attributes:
        spoil: no, null or zero, by a fault; empty for none.
        cached: Whether cached prompt tokens are reported.
        timings: llama.cpp's `timings` beside usage.
        flat_reasoning: SGLang's `reasoning_tokens` at the top of usage.
    """

    spoil: str = ""
    cached: bool = False
    timings: bool = False
    flat_reasoning: bool = False

    def chat(self, run: Run) -> dict[str, Any]:
        """Usage of chat and legacy completions."""
        usage: dict[str, Any] = {
            "prompt_tokens": run.prompt_tokens,
            "completion_tokens": run.produced,
            "total_tokens": run.prompt_tokens + run.produced,
        }
        if self.cached:
            usage["prompt_tokens_details"] = {"cached_tokens": run.cached_tokens}
        if run.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": run.reasoned}
        if self.flat_reasoning:
            usage["reasoning_tokens"] = run.reasoned
        return self._spoiled(usage)

    def responses(self, run: Run) -> dict[str, Any]:
        """Usage of the Responses API."""
        return self._spoiled(
            {
                "input_tokens": run.prompt_tokens,
                "input_tokens_details": {"cached_tokens": run.cached_tokens if self.cached else 0},
                "output_tokens": run.produced,
                "output_tokens_details": {"reasoning_tokens": run.reasoned},
                "total_tokens": run.prompt_tokens + run.produced,
            }
        )

    def anthropic(self, run: Run) -> dict[str, Any]:
        """Usage of messages: input excludes what was read from the cache."""
        cached = run.cached_tokens if self.cached else 0
        return self._spoiled(
            {
                "input_tokens": run.prompt_tokens - cached,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached,
                "output_tokens": run.produced,
            }
        )

    def _spoiled(self, usage: dict[str, Any]) -> dict[str, Any]:
        if self.spoil != "zero":
            return usage
        return {key: self._spoiled(value) if isinstance(value, dict) else 0 for key, value in usage.items()}

    def attach(self, payload: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
        """Put usage into a payload, or null, or nothing."""
        if self.spoil != "no":
            payload["usage"] = None if self.spoil == "null" else usage
        return payload

    def attach_timings(self, payload: dict[str, Any], run: Run) -> dict[str, Any]:
        """Put llama.cpp's timings into a payload; `prompt_n` excludes what was cached."""
        if not self.timings:
            return payload
        prompt_n = run.prompt_tokens - run.cached_tokens
        prompt_ms = max(0.001, (run.first_s - run.started_s) * 1000)
        predicted_ms = max(0.001, (run.last_s - run.first_s) * 1000)
        predicted_n = max(1, run.produced)
        payload["timings"] = {
            "cache_n": run.cached_tokens,
            "prompt_n": prompt_n,
            "prompt_ms": prompt_ms,
            "prompt_per_token_ms": prompt_ms / max(1, prompt_n),
            "prompt_per_second": prompt_n / prompt_ms * 1000,
            "predicted_n": run.produced,
            "predicted_ms": predicted_ms,
            "predicted_per_token_ms": predicted_ms / predicted_n,
            "predicted_per_second": run.produced / predicted_ms * 1000,
        }
        return payload
