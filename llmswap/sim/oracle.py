"""Who may live together, worked out the plain way: pair by pair, or by writing out every combination.

Slow and obviously right, and apart from the scheduler's own solver: it judges that one.
"""

from collections.abc import Collection

from llmswap.core.fleet import Fleet, Group, ModelId, Router
from llmswap.core.matrix import All, Any, Name, Node, Ref, parse


class Oracle:
    """The rules of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._groups = {model: group for group in fleet.groups for model in group.members}
        self._combinations: list[frozenset[ModelId]] | None = None
        if fleet.router is Router.MATRIX:
            assert fleet.matrix is not None, "the matrix router needs a matrix"
            names = {**{str(model): model for model in fleet.models}, **fleet.matrix.vars}
            sets = {name: parse(text) for name, text in fleet.matrix.sets.items()}
            self._combinations = [choice for node in sets.values() for choice in combinations(node, names, sets)]

    @property
    def pairwise(self) -> bool:
        """Whether groups are the rule, so that `evicts` has an answer."""
        return self._combinations is None

    def evicts(self, target: ModelId, other: ModelId) -> bool:
        """Whether loading the target pushes the other one out."""
        own = self._groups.get(target, Group("(default)", ()))
        theirs = self._groups.get(other, Group("(default)", ()))
        return own.swap if own.name == theirs.name else own.exclusive and not theirs.persistent

    def together(self, models: Collection[ModelId]) -> bool:
        """Whether some combination holds all of these; one alone may always run."""
        assert self._combinations is not None, "groups are judged pair by pair"
        return len(models) == 1 or any(choice.issuperset(models) for choice in self._combinations)


def combinations(node: Node, names: dict[str, ModelId], sets: dict[str, Node]) -> list[frozenset[ModelId]]:
    """Write out every combination of an expression once, in the order that breaks ties."""
    match node:
        case Name(text):
            found = [frozenset({names[text]})]
        case Ref(text):
            found = combinations(sets[text], names, sets)
        case Any(parts):
            found = [choice for part in parts for choice in combinations(part, names, sets)]
        case All(parts):
            found = [frozenset()]
            for part in parts:
                choices = combinations(part, names, sets)
                found = list(dict.fromkeys(one | other for one in found for other in choices))
    return list(dict.fromkeys(found))
