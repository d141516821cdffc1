"""llmswap's own log: Python's logging, led into the log book."""

import logging
import time

from llmswap.config.settings import Settings
from llmswap.runtime.logbook import LogBook, ProxyLogHandler
from llmswap.runtime.logevents import DROPPED, ENCODERS
from llmswap.runtime.stdout import Gap, gap

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


class ProxyLog:
    """Leads all log records of this process into the book, at the configured level.

    Libraries are heard from WARNING on; only llmswap's own loggers follow `logLevel`.
    """

    def __init__(self, book: LogBook) -> None:
        self._book = book
        self._handler = ProxyLogHandler(book)
        logging.getLogger().addHandler(self._handler)

    def configure(self, settings: Settings) -> None:
        """Take new settings: the log's, the secrets to hide, the form of lines (text, json or logfmt)."""
        form = settings.telemetry.log_format
        self._book.configure(settings.log, settings.access.api_keys, gap_in(form))
        self._handler.configure(settings.log.time_format, form)
        logging.getLogger("llmswap").setLevel(LEVELS[settings.log.level])

    def remove(self) -> None:
        """Log no more."""
        logging.getLogger().removeHandler(self._handler)


def gap_in(form: str) -> Gap:
    """Give what tells of lost bytes in a form."""
    encode = ENCODERS.get(form)
    if encode is None:
        return gap
    return lambda size: encode(time.time(), "warn", DROPPED, f"{size} bytes dropped", {"bytes": size})
