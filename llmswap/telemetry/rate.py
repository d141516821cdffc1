"""Tokens per second over the last while, in as many numbers as it has seconds."""

WINDOW_S = 10


class TokenRate:
    """Sums by the second, for WINDOW_S seconds."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums = [(-1, 0, 0)] * WINDOW_S  # (which second, prompts' tokens, answers')

    def add(self, now_s: float, prompt: int, answer: int) -> None:
        """Count the tokens of an answer that has just ended."""
        second = int(now_s)
        place = second % WINDOW_S
        known, prompts, answers = self._sums[place]
        self._sums[place] = (
            (second, prompt, answer) if known != second else (second, prompts + prompt, answers + answer)
        )

    def per_second(self, now_s: float) -> tuple[float, float]:
        """Give tokens per second: of prompts, of answers."""
        oldest = int(now_s) - WINDOW_S
        recent = [(prompts, answers) for second, prompts, answers in self._sums if second > oldest]
        return sum(prompts for prompts, _ in recent) / WINDOW_S, sum(answers for _, answers in recent) / WINDOW_S
