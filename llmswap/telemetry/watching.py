"""Several who watch requests, as one: in order, and the trouble of one is not the others'."""

import logging
from collections.abc import Callable

from llmswap.runtime.observing import HeaderFields, RequestObserver, RequestRecord

log = logging.getLogger(__name__)


class Watching:
    """A RequestObserver made of others.

    Args:
        observers: In the order in which they see a request. Tracing comes first: it is what sets `record.trace_id`,
            which metrics and logs show. What is None is left out. The fields to send are those of all, the later
            ones over the earlier.
    """

    def __init__(self, *observers: RequestObserver | None) -> None:
        self._observers = tuple(observer for observer in observers if observer is not None)

    def waits(self, record: RequestRecord) -> None:
        """Show it as it begins to wait."""
        for observer in self._observers:
            _show(observer.waits, record)

    def sends(self, record: RequestRecord) -> HeaderFields:
        """Show it as it is sent; gives every field that any of them wants sent."""
        fields: HeaderFields = ()
        for observer in self._observers:
            given = _show(observer.sends, record)
            if given:
                fields = (*fields, *given)
        return fields

    def ended(self, record: RequestRecord) -> None:
        """Show it when it is over."""
        for observer in self._observers:
            _show(observer.ended, record)


def _show(see: Callable[[RequestRecord], HeaderFields | None], record: RequestRecord) -> HeaderFields | None:
    try:
        return see(record)
    except Exception:
        log.exception("an observer failed on request %s", record.id)
        return None
