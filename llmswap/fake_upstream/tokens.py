"""Words that look like a model's: counting a prompt's tokens and writing an answer. Pure and seeded."""

import re
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from math import log
from random import Random

TOKEN = re.compile(r"\s*\w{1,12}|\s*[^\w\s]|\s+")
BLOCK_TOKENS = 16
CACHE_BLOCKS_MAX = 8192
LONGEST_ANSWER = 8192

WORDS = (  # noqa: SIM905  a text reads better than a list of its words
    "the model of a small proxy waits while its neighbour leaves and memory comes back so that every request gets "
    "one clear answer in order from an engine which loads slowly but then speaks fast about queues gates leases and "
    "streams until somebody asks for another name and then it all begins again"
).split()
GARBAGE = ("!!", "\u0436\u0436", "}{", "@@@", "\u00a4", "0x", "\u2591", "??")


@dataclass(frozen=True, slots=True)
class OutputLength:
    """How many tokens an answer has: `exact:N`, or `lognormal:MEDIAN`."""

    law: str
    tokens: int

    @classmethod
    def parse(cls, text: str) -> "OutputLength":
        """Read `exact:N`, `lognormal:MEDIAN`, or a bare number, which means exact.

        Raises:
            ValueError: Neither.
        """
        law, _, number = text.rpartition(":")
        law = law or "exact"
        if law not in ("exact", "lognormal") or not number.isdecimal():
            raise ValueError(f"{text!r} is not exact:N or lognormal:MEDIAN")
        return cls(law, int(number))

    def __str__(self) -> str:
        return f"{self.law}:{self.tokens}"

    def draw(self, rng: Random) -> int:
        """Give one answer's length."""
        if self.law == "exact":
            return self.tokens
        return min(LONGEST_ANSWER, max(1, round(rng.lognormvariate(log(max(1, self.tokens)), 0.6))))


def tokenize(text: str) -> list[str]:
    """Split text into tokens; joined, they are the text again."""
    return TOKEN.findall(text)


def token_id(token: str) -> int:
    """Give a token its number in a vocabulary of 128k."""
    return zlib.crc32(token.encode()) % 128_000


def answer(rng: Random, length: int, *, garbage: bool = False) -> list[str]:
    """Write an answer of so many tokens."""
    words = GARBAGE if garbage else WORDS
    return [(" " if i else "") + rng.choice(words) for i in range(length)]


class PrefixCache:
    """Which prompt prefixes were seen, in blocks of 16 tokens, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def look_up(self, tokens: list[str]) -> int:
        """Count the leading tokens that are cached, and remember all whole blocks of the prompt."""
        chain, cached, unbroken = 0, 0, True
        for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            chain = zlib.crc32("".join(tokens[start : start + BLOCK_TOKENS]).encode(), chain)
            unbroken = unbroken and chain in self._blocks
            cached += BLOCK_TOKENS if unbroken else 0
            self._blocks[chain] = None
            self._blocks.move_to_end(chain)
        while len(self._blocks) > CACHE_BLOCKS_MAX:
            self._blocks.popitem(last=False)
        return min(cached, max(0, len(tokens) - 1))

    def __len__(self) -> int:
        return len(self._blocks)

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
