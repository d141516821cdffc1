"""llmswap's own log: Python's logging, led into the log book."""

import logging
from collections.abc import Iterable

from llmswap.config.settings import LogSettings
from llmswap.runtime.logbook import LogBook, ProxyLogHandler

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


class ProxyLog:
    """Leads all log records of this process into the book, at the configured level.

    Libraries are heard from WARNING on; only llmswap's own loggers follow `logLevel`.
    """

    def __init__(self, book: LogBook) -> None:
        self._book = book
        self._handler = ProxyLogHandler(book)
        logging.getLogger().addHandler(self._handler)

    def configure(self, settings: LogSettings, secrets: Iterable[str]) -> None:
        """Take new settings, and the secrets to hide."""
        self._book.configure(settings, secrets)
        self._handler.set_time_format(settings.time_format)
        logging.getLogger("llmswap").setLevel(LEVELS[settings.level])

    def remove(self) -> None:
        """Log no more."""
        logging.getLogger().removeHandler(self._handler)
