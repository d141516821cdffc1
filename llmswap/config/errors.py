"""What is wrong with a config, and where. All issues of a file are reported at once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ConfigIssue:
    """One thing wrong, or worth a warning.

    Attributes:
        line: 1-based; 0 if the issue has no place in the file.
        path: Keys from the top, joined by dots: `models.llama.ttl`; empty for the whole file.
        message: What is wrong and what to do.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"

    def as_dict(self) -> dict[str, str | int]:
        """Give the issue for `llmswap check --json`."""
        return asdict(self)


class ConfigError(Exception):
    """The config cannot be used. Carries every issue found, in the file's order."""

    def __init__(self, issues: Sequence[ConfigIssue]) -> None:
        super().__init__("\n".join(map(str, issues)))
        self.issues = tuple(issues)
