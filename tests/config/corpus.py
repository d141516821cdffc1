"""Broken configs, made from good ones: the same every time."""

import random
from collections.abc import Iterator
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
ENV = {"LLAMA_LOG": "1", "FIRST_KEY": "first", "SECOND_KEY": "second", "OFFICE_KEY": "office"}

_EVIL = (
    *("~", "[]", "{}", "''", "-1", "0", "1e400", ".nan", "-.inf", "9" * 5000, "0x" + "f" * 100, "true", "2024-13-45"),
    *(
        "!!python/object/apply:os.system [id]",
        "!!binary aGk=",
        "!x y",
        "*nobody",
        "&a [*a]",
        "<<: *b",
        "? [a]",
        "%YAML",
    ),
    *("${", "${}", "${PORT}", "${PID}", "${nope}", "${env.NOPE}", "${env.}", '"\\0"', '"\\ud800"', "\x07", "\ufeff"),
    *(
        "|",
        ">",
        "'",
        '"',
        "[",
        "{",
        ":",
        "- -",
        "@",
        "`",
        "\t",
        "é\u2028",
        "[" * 200,
        "{a: " * 200,
        "- " * 200,
        "...",
        "---",
    ),
)
_INSERTED = (*_EVIL, "\n", "  ", ": ", "# ", ",", "]", "}", "\\")

# Bombs that are fine configs after all.
HARMLESS = frozenset({"many open comments", "many anchors", "a long date"})


def bombs() -> Iterator[tuple[str, str]]:
    """Configs that try to use up time or memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    yield "aliases that multiply", "\n".join(lines)
    lines = ["b0: &b0 {k0: x}", *(f"b{n}: &b{n} {{<<: [*b{n - 1}, *b{n - 1}], k{n}: *b{n - 1}}}" for n in range(1, 40))]
    yield "merges that multiply", "\n".join(lines)
    chain = ["c0: &c0 [x]", *(f"c{n}: &c{n} [*c{n - 1}]" for n in range(1, 5000))]
    yield "aliases that nest", "\n".join(chain)
    doubling = "\n".join(f'  m{n}: "${{m{n - 1}}}${{m{n - 1}}}"' for n in range(1, 60))
    yield "macros that multiply", f"macros:\n  m0: x\n{doubling}\nmodels: {{m: {{cmd: '${{m59}} ${{PORT}}'}}}}"
    yield "deep flow", "[" * 100_000
    yield "deep blocks", "\n".join(" " * n + "a:" for n in range(2000))
    yield "many anchors", "x: [" + ", ".join(f"&a{n} 1" for n in range(20_000)) + "]"
    yield "a long number", "globalTTL: " + "9" * 1_000_000
    yield "a long date", "logTimeFormat: 2024-01-02 " + "1" * 200_000
    yield "many unknown keys", "\n".join(f"unknown{n}: 1" for n in range(2000))
    yield "many bad values", "models:\n" + "\n".join(f"  m{n}: {{cmd: [x], ttl: x}}" for n in range(1000))
    yield (
        "many leftovers",
        "models: {m: {cmd: 'x ${PORT}', env: [" + ", ".join(f"'${{n{n}}}'" for n in range(3000)) + "]}}",
    )
    many = "models:\n" + "\n".join(f"  model-{n}: {{cmd: 'x ${{PORT}}'}}" for n in range(1000))
    strangers = ", ".join(f"nobody-{n}" for n in range(1000))
    yield (
        "many strangers",
        f"{many}\ngroups: {{g: {{members: [{strangers}]}}}}\nhooks: {{on_startup: {{preload: [{strangers}]}}}}",
    )
    yield "many strangers in a matrix", f"{many}\nmatrix: {{sets: {{s: {strangers.replace(', ', ' & ')}}}}}"
    yield "a long pattern", "upstream: {ignorePaths: ['" + "(a|" * 20_000 + "']}"
    yield "many open comments", "# ${env.NOPE}\n" * 20_000
    yield "many missing variables", "\n".join(f"x{n}: ${{env.NO{n}}}" for n in range(2000))
    yield "a large file", "# " + "x" * (9 * 2**20)


def mutants(count: int) -> Iterator[tuple[str, str]]:
    """Give a name and a text for each broken config."""
    originals = [path.read_text() for path in sorted(CONFIGS.glob("*.yaml"))]
    for number in range(count):
        chance = random.Random(number)  # the same corpus every time
        text = chance.choice(originals)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            text = chance.choice((_character, _line, _value, _value, _key, _insertion, _cut))(text, chance)
        yield f"mutant {number}", text


def _character(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return (
        text[:at] + chance.choice(("", chr(chance.randrange(32, 127)), chr(chance.randrange(0x2FF)))) + text[at + 1 :]
    )


def _insertion(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return text[:at] + chance.choice(_INSERTED) + text[at:]


def _cut(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return text[:at] if chance.random() < 0.3 else text[:at] + text[at + chance.randrange(40) :]


def _line(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    kind = chance.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        lines[at] = " " * chance.randrange(6) + lines[at].lstrip()
    else:
        lines.insert(at, lines.pop(chance.randrange(len(lines))))
    return "\n".join(lines)


def _value(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    at = chance.choice([number for number, line in enumerate(lines) if ":" in line] or [0])
    lines[at] = lines[at].partition(":")[0] + ": " + chance.choice(_EVIL)
    return "\n".join(lines)


def _key(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    at = chance.choice([number for number, line in enumerate(lines) if ":" in line] or [0])
    key, colon, value = lines[at].partition(":")
    stem = key.strip()
    changed = chance.choice((stem.swapcase(), stem[:-1], stem + "s", "123", "~", "'a b'", "<<", "", "${x}"))
    lines[at] = key.replace(stem, changed, 1) + colon + value if stem else lines[at]
    return "\n".join(lines)
