"""The requests that are inside right now, so that an operator can cancel one by its number."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """Requests by number, each with the timeout scope that surrounds its work."""

    def __init__(self) -> None:
        self._scopes: dict[int, asyncio.Timeout] = {}

    @contextmanager
    def listed(self, number: int, scope: asyncio.Timeout) -> Iterator[None]:
        """List a request for as long as the block lasts; `scope` surrounds what is to end when it is cancelled."""
        self._scopes[number] = scope
        try:
            yield
        finally:
            del self._scopes[number]

    def cancel(self, number: int) -> bool:
        """End a request: its scope expires at once. False if there is no such request."""
        scope = self._scopes.get(number)
        if scope is None:
            return False
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())
        return True
