"""Secrets out of texts: what looks like a secret in a command line, and what is known to be one. Pure."""

import re
from collections.abc import Iterable

HIDDEN = "***"

# A name says "secret" by one of its parts: `--api-key`, `HF_TOKEN`; but not `--max-tokens`, `--tokenizer`.
# Looked for ahead of a possessive match, so that a long word costs its length and not the square of it.
_NAME = r"(?=[\w.-]*?(?:key|token|secret|password|passwd|credential)(?:file)?(?![a-z]))[\w.-]++"
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s\"']+)"
_ASSIGNED = re.compile(rf"(?<![\w.-])({_NAME})=({_VALUE})", re.IGNORECASE)
_FLAG = re.compile(rf"(?<!\S)(--?{_NAME})(\s+)(?!-)({_VALUE})", re.IGNORECASE)
_HEADER = re.compile(r"((?:authorization|x-api-key|proxy-authorization)\s*:\s*)([^\"'\r\n]+)", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer\s+)[\w.~+/=-]+", re.IGNORECASE)
_WELL_KNOWN = re.compile(r"\b(?:sk-[\w-]{16,}|hf_\w{16,}|gh[pousr]_\w{16,})")

# A shorter one would blot out innocent text ("a key 'on' hides every 'on'").
_SHORTEST_SECRET = 4


def redact_command(text: str) -> str:
    """Hide the values of everything named like a secret: flags, `NAME=value`, authorization headers, known prefixes."""
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\1={HIDDEN}", text)
    text = _FLAG.sub(rf"\1\2{HIDDEN}", text)
    return _WELL_KNOWN.sub(HIDDEN, text)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Hide these literal secrets wherever they appear."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return text


def secrets_in(cmd: str, env: Iterable[str]) -> tuple[str, ...]:
    """Find the values that `redact_command` would hide in a command and its `K=V` pairs, longest first."""
    texts = [cmd, *env]
    found = {match[2] for text in texts for match in _ASSIGNED.finditer(text)}
    found |= {match[3] for text in texts for match in _FLAG.finditer(text)}
    values = {value.strip("\"'") for value in found}
    return tuple(sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True))
