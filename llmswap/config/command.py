r"""Command lines as llama-swap splits them: a small POSIX dialect without a shell, variables or globbing.

`shlex` is not it: it refuses unterminated quotes, keeps the backslash of `"\$"` and splits at carriage returns.
"""

_SEPARATORS = " \t\n"
_ESCAPED_IN_DOUBLE_QUOTES = '$`"\\'


def without_comments(text: str) -> str:
    """Drop the lines whose first visible character is `#`."""
    if "#" not in text:
        return text
    return "\n".join(line for line in text.split("\n") if not line.strip().startswith("#"))


def split(text: str) -> list[str]:
    """Split a `cmd` or `cmdStop` into its arguments; empty if there is nothing but blanks and comments.

    Comment lines vanish (macros may have brought new ones), and a line that ends in a backslash goes on in the next.
    An unterminated quote is no error: it ends with the text.
    """
    return _split(_joined(without_comments(text)))


def _joined(text: str) -> str:
    if "\\" not in text:
        return text
    return "\n".join(line.rstrip()[:-1] + " " if line.rstrip().endswith("\\") else line for line in text.split("\n"))


def _split(text: str) -> list[str]:
    words: list[str] = []
    word: list[str] | None = None
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char in _SEPARATORS:
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        word = [] if word is None else word
        if char == "'":
            end = text.find("'", at)
            end = len(text) if end < 0 else end
            word.append(text[at:end])
            at = end + 1
        elif char == '"':
            at = _double_quoted(text, at, word)
        elif char == "\\":
            word.append(text[at : at + 1])
            at += 1
        else:
            word.append(char)
    if word is not None:
        words.append("".join(word))
    return words


def _double_quoted(text: str, at: int, word: list[str]) -> int:
    """Take what follows a `"` into the word; returns where to go on."""
    while at < len(text):
        char = text[at]
        at += 1
        if char == '"':
            break
        if char == "\\" and at < len(text) and text[at] in _ESCAPED_IN_DOUBLE_QUOTES:
            char = text[at]
            at += 1
        word.append(char)
    return at
