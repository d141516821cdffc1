"""A parsed config as plain values that remember where they stood. What the values mean is not known here."""

from typing import Any, NamedTuple, TypeAlias

from llmswap.config.scalars import Scalar

Path: TypeAlias = tuple[str | int, ...]


class Place(NamedTuple):
    """Where something stands; line and column are 1-based."""

    file: str
    line: int
    column: int


class Map(dict[str, Any]):
    """A mapping, and where each key stands."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Place] = {}

    def put(self, key: str, value: "Tree", place: Place) -> None:
        """Set a key and its place."""
        self[key] = value
        self.places[key] = place


class Seq(list[Any]):
    """A sequence, and where each item stands."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []

    def put(self, value: "Tree", place: Place) -> None:
        """Append an item and its place."""
        self.append(value)
        self.places.append(place)


Tree: TypeAlias = Map | Seq | Scalar


def find_place(tree: Tree, path: Path) -> Place | None:
    """Find where a path stands, or the deepest part of it that is there."""
    place = None
    for part in path:
        if isinstance(tree, Map) and isinstance(part, str) and part in tree.places:
            place, tree = tree.places[part], tree.get(part)
        elif isinstance(tree, Seq) and isinstance(part, int) and part < len(tree):
            place, tree = tree.places[part], tree[part]
        else:
            break
    return place


def plain(tree: Any) -> Any:  # noqa: ANN401  values of any shape, by nature
    """Copy a tree into ordinary dicts, lists and strings, for what is kept when the config has been read."""
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    return str(tree) if isinstance(tree, str) else tree
