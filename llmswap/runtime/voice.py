"""What an upstream prints, as far as a reason may quote it: its last line, without secrets."""

from llmswap.core.fleet import ModelId
from llmswap.runtime.containers import is_hint
from llmswap.runtime.logbook import LogBook, LogRing
from llmswap.runtime.redaction import redact_command

REASON_CHARS = 300
_TAIL_BYTES = 4096


class Voice:
    """Passes on what a model's processes print, and remembers the end of it."""

    def __init__(self, model: ModelId, logs: LogBook) -> None:
        self._model = model
        self._logs = logs
        self._printed = LogRing(_TAIL_BYTES)

    def hear(self, data: bytes) -> None:
        """Take what was printed."""
        self._printed.write(data)
        self._logs.write_upstream(self._model, data)

    def hide(self, text: str) -> str:
        """Shorten a text and take secrets out."""
        return self._logs.hide(redact_command(text), self._model)[:REASON_CHARS]

    def with_last_words(self, reason: str) -> str:
        """Add the last line that was printed to a reason."""
        printed = self._printed.history().decode(errors="replace").splitlines()
        lines = [line for line in printed if line.strip() and not is_hint(line)]
        if not lines:
            return reason
        return f"{reason}: {self._logs.hide(redact_command(lines[-1].strip()), self._model)}"
