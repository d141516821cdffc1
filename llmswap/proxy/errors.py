"""The one exception that answers a client. Whoever finds the fault raises it; the door renders it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestError(Exception):
    """The answer is this error, and nothing of the response has been sent yet.

    Attributes:
        message: One line: what is wrong and what to do. Never a secret.
        code: OpenAI's machine-readable `error.code`; None takes the status's default.
        headers: Extra response headers (Retry-After, Allow ...).
    """

    status: int
    message: str
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message
