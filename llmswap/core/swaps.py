"""A swap: a model on its way in, and who must be gone first."""

from collections.abc import Collection
from dataclasses import dataclass

from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import SwapView


@dataclass(slots=True)
class Swap:
    """One model's way in, from the decision until it is ready or failed.

    Attributes:
        evict: Everybody who had to go, for as long as the swap lasts.
        pending: Those of them whose memory is not free yet. Nothing is started before this is empty.
        evicted: Those of them who were stopped for this swap.
        since_s: When it was decided.
        begun: The start was ordered.
    """

    target: ModelId
    evict: tuple[ModelId, ...]
    pending: set[ModelId]
    evicted: tuple[ModelId, ...]
    since_s: float
    begun: bool = False

    def collides(self, target: ModelId, evict: Collection[ModelId]) -> bool:
        """Whether another swap to that target must wait until this one is over."""
        return self.target in evict or target in self.evict or not set(evict).isdisjoint(self.evict)

    def view(self) -> SwapView:
        """Show the swap."""
        return SwapView(self.target, tuple(sorted(self.pending)), self.since_s)
