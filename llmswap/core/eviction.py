"""Who must go so that a model may run: by group or by matrix. Pure functions of (fleet, target, running)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from llmswap.core.fleet import Fleet, Group, ModelId, Router
from llmswap.core.matrix import Matrix

LONERS = Group("(default)", ())  # models that no group names share llama-swap's implicit group


class Rules(Protocol):
    """A rule of living together."""

    def evictions(self, target: ModelId, running: Sequence[ModelId], *, ready: bool) -> tuple[ModelId, ...]:
        """Name those of `running` that must go before the target is served.

        Args:
            target: Who is to be served.
            running: Who holds memory or is about to, the target left out.
            ready: Whether the target is up already.
        """

    def group_name(self, model: ModelId) -> str:
        """Name a model's group; empty if groups are not the rule."""


class GroupRules:
    """llama-swap's group policy. Also asked about a ready target: exclusive members evict whom they find.

    Args:
        groups: The groups of the fleet.
        leftovers: Removed models that still hold memory, and the group each was in. They keep its rule while a group
            of that name exists.
    """

    def __init__(self, groups: Sequence[Group], leftovers: Mapping[ModelId, str]) -> None:
        by_name = {group.name: group for group in groups}
        self._loners = by_name.get(LONERS.name, LONERS)
        self._groups = {model: by_name.get(name, self._loners) for model, name in leftovers.items()}
        self._groups.update((model, group) for group in groups for model in group.members)

    def group_name(self, model: ModelId) -> str:
        """Name a model's group."""
        return self._groups.get(model, self._loners).name

    def evictions(self, target: ModelId, running: Sequence[ModelId], *, ready: bool) -> tuple[ModelId, ...]:  # noqa: ARG002
        """Name members of the same group if it swaps, others if the group is exclusive and theirs not persistent."""
        own = self._groups.get(target, self._loners)
        evict: list[ModelId] = []
        for model in running:
            other = self._groups.get(model, self._loners)
            if own.swap if other is own else own.exclusive and not other.persistent:
                evict.append(model)
        return tuple(evict)


class MatrixChoice:
    """llama-swap's matrix policy. A ready target evicts nobody; a model in no set lives alone."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix

    def group_name(self, model: ModelId) -> str:  # noqa: ARG002
        """Give no group."""
        return ""

    def evictions(self, target: ModelId, running: Sequence[ModelId], *, ready: bool) -> tuple[ModelId, ...]:
        """Name those outside the cheapest allowed set that holds the target."""
        return () if ready else self._matrix.solve(target, running).evict


def rules_of(fleet: Fleet, leftovers: Mapping[ModelId, str]) -> Rules:
    """Choose the fleet's rule.

    Raises:
        MatrixError: The matrix is invalid. The config is checked at load, so this is not bad input any more.
    """
    if fleet.router is Router.MATRIX:
        assert fleet.matrix is not None, "the matrix router needs a matrix"
        return MatrixChoice(Matrix(fleet.matrix, fleet.models))
    return GroupRules(fleet.groups, leftovers)
