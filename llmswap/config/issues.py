"""Collects what is wrong with a config, each at its place. Also the "did you mean" of every message."""

import difflib
from collections.abc import Collection

from llmswap.config.errors import ConfigError, ConfigIssue
from llmswap.config.tree import Path, Place, Tree, find_place

MAX_COMPARISONS = 20_000


class Issues:
    """Errors and warnings of one load, at first by explicit place, later by path in the merged tree.

    Attributes:
        root: Where paths are looked up; set once the sources are merged.
    """

    def __init__(self, file: str) -> None:
        self.root: Tree = None
        self._nowhere = Place(file, 0, 0)
        self._errors: list[ConfigIssue] = []
        self._warnings: list[ConfigIssue] = []
        self._comparisons_left = MAX_COMPARISONS
        self._spoiled: set[tuple[str, int]] = set()

    def __bool__(self) -> bool:
        return bool(self._errors)

    def error(self, path: Path, message: str) -> None:
        """Note an error at a path of the merged tree."""
        self.error_at(self.place(path), path, message)

    def error_at(self, place: Place | None, path: Path, message: str, *, spoils: bool = False) -> None:
        """Note an error at a place.

        If it spoils, the value could not be read as it was meant: later errors on its line are not to be believed.
        """
        place = place or self._nowhere
        if (place.file, place.line) in self._spoiled:
            return
        if spoils:
            self._spoiled.add((place.file, place.line))
        self._note(self._errors, place, path, message)

    def warn(self, path: Path, message: str) -> None:
        """Note something that does not stop the config from being used."""
        self._note(self._warnings, self.place(path), path, message)

    def is_wrong(self, path: Path) -> bool:
        """Whether an error was noted there, or below."""
        where = dotted(path)
        return any(issue.path == where or issue.path.startswith((f"{where}.", f"{where}[")) for issue in self._errors)

    def place(self, path: Path) -> Place:
        """Find the place of a path, or of the deepest part of it that is in the file."""
        return find_place(self.root, path) or self._nowhere

    def line_of(self, path: Path) -> str:
        """Name the place of something else that a message speaks of."""
        place = self.place(path)
        return f"{place.file}:{place.line}"

    def check(self) -> None:
        """Stop here if anything is wrong.

        Raises:
            ConfigError: With every error so far, in the file's order.
        """
        if self._errors:
            raise ConfigError(_in_order(self._errors))

    def warnings(self) -> tuple[ConfigIssue, ...]:
        """Give the warnings in the file's order."""
        return tuple(_in_order(self._warnings))

    def hint(self, word: str, known: Collection[str]) -> str:
        """Suggest the nearest known word: ` (did you mean 'ttl'?)`, or nothing if none is near.

        Comparing takes time, so after a few thousand words a config gets no more suggestions.
        """
        self._comparisons_left -= len(known)
        if self._comparisons_left < 0:
            return ""
        by_lower = {name.lower(): name for name in known}
        near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
        return f" (did you mean '{by_lower[near[0]]}'?)" if near else ""

    @staticmethod
    def _note(into: list[ConfigIssue], place: Place, path: Path, message: str) -> None:
        into.append(ConfigIssue(place.file, place.line, place.column, dotted(path), message))


def dotted(path: Path) -> str:
    """Write a path the way messages do: `models.llama.aliases[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _in_order(issues: list[ConfigIssue]) -> list[ConfigIssue]:
    return sorted(issues, key=lambda issue: (issue.file, issue.line, issue.column))
