"""What an upstream prints, as far as a reason may quote it: its last line, without secrets."""

import re

from llmswap.core.fleet import ModelId
from llmswap.runtime.containers import is_hint
from llmswap.runtime.logbook import LogBook, LogRing
from llmswap.runtime.redaction import redact_command

REASON_CHARS = 300
_TAIL_BYTES = 16 << 10
# What llama.cpp, vLLM, SGLang and PyTorch say of device memory that is not there; a traceback may follow.
_LACKS_MEMORY = re.compile(
    rb"out of memory|OutOfMemoryError|less than desired GPU memory|No available memory for the cache blocks"
    rb"|Not enough memory|(failed|unable) to allocate [^\n]*\bbuffer\b",
    re.IGNORECASE,
)


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

    @property
    def lacked_memory(self) -> bool:
        """Whether the end of what was printed tells of too little device memory."""
        return _LACKS_MEMORY.search(self._printed.history()) is not None

    def with_last_words(self, reason: str) -> str:
        """Add the last line that was printed to a reason."""
        printed = self._printed.history().decode(errors="replace").splitlines()
        lines = [line for line in printed if line.strip() and not is_hint(line)]
        if not lines:
            return reason
        return f"{reason}: {self._logs.hide(redact_command(lines[-1].strip()), self._model)}"
