r"""`upstream.ignorePaths`: llama-swap's regular expressions (RE2), read by Python's engine.

What RE2 refuses is refused here: lookaround and backreferences. `$` means the end of the text only, as in RE2.
"""

import re
import warnings

DEFAULT_IGNORE_PATH = r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$"

_TOKEN = re.compile(
    r"\\(?P<escaped>.)|(?P<open>\[\^?\]?)|(?P<close>\])|(?P<special>\(\?(?:<?[=!]|P=|>|\())|(?P<end>\$)", re.DOTALL
)


def compile_re2(pattern: str) -> re.Pattern[str]:
    """Compile a pattern.

    Raises:
        ValueError: It is no regular expression, or one that RE2 does not know.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a pattern may look like a set operation of a future Python
            return re.compile(_translated(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a valid regular expression: {error}") from None


def _translated(pattern: str) -> str:
    inside_class = False
    multiline = re.match(r"\(\?[a-zA-Z]*m", pattern) is not None

    def rewrite(token: re.Match[str]) -> str:
        nonlocal inside_class
        if escaped := token["escaped"]:
            if not inside_class and escaped in "123456789":
                raise ValueError("backreferences are not supported")
            return r"\Z" if escaped == "z" and not inside_class else token[0]
        if token["open"] and not inside_class:
            inside_class = True
        elif token["close"]:
            inside_class = False
        elif not inside_class and token["special"]:
            raise ValueError("lookaround and backreferences are not supported")
        elif not inside_class and token["end"] and not multiline:
            return r"\Z"
        return token[0]

    return _TOKEN.sub(rewrite, pattern)
