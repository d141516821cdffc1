"""`${env.NAME}` in a config's text, before it is YAML, as llama-swap does it."""

import re
from collections.abc import Mapping

_USE = re.compile(r"\$\{env\.([a-zA-Z_][a-zA-Z0-9_]*)\}")
_MAX_ROUNDS = 2  # llama-swap substitutes twice, so a value may itself hold one `${env.Y}`


def substitute(text: str, env: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    r"""Put the values of environment variables into the text.

    Backslashes and double quotes in a value are escaped with a backslash, which is right inside double quotes; in
    plain and single-quoted scalars the backslashes stay.

    Returns:
        The text, and the stand-ins that are in it now: each with what is wrong, to be reported unless it is in a
        comment, which only the parser knows. An empty value gets a stand-in without a message: `apiKeys: [${env.K}]`
        must not turn into a list of no keys, which would leave the door open.
    """
    stand_ins: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        name = match[1]
        found = env.get(name)
        if found is None:
            message = f"environment variable '{name}' is not set: set it, or remove ${{env.{name}}}"
        elif any(char in found for char in "\n\r\0"):
            message = f"environment variable '{name}' contains a line break or a NUL, which a config value cannot hold"
        elif not found:
            message = ""
        else:
            return found.replace("\\", "\\\\").replace('"', '\\"')
        stand_in = f"llmswap-without-{name}-here"
        stand_ins[stand_in] = message
        return stand_in

    for _ in range(_MAX_ROUNDS):
        if "${env." not in text:
            break
        text = _USE.sub(value, text)
    return text, stand_ins
