"""Rules for a world that runs faster: every duration in them divided by a factor.

    python -m tests.real.scaled_rules 6 OUT    # prometheus/rules/*.yml into OUT: 30 minutes become 5, an hour 10

Divided: windows and offsets in expressions, `for`, `keep_firing_for` and `interval`. Not divided: numbers that are
compared with (`> 600` seconds, `>= 4` swaps), so LLMSwapSwapStuck, LLMSwapQueueStarvation and LLMSwapGPUXid mean real
time. A window must hold two scrapes: give Prometheus a short `scrape_interval`, or a floor here.

Of a world that is 20 times as fast, rules by 60 to 120 judge quickly: `test_rules.py` divides by 60, scrapes every
second, and has LLMSwapThrashing fire half a minute after its first request.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parents[2] / "prometheus" / "rules"
KEYS = ("for", "keep_firing_for", "interval")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_IN_QUERY = re.compile(rf"(?P<before>\[|:|\boffset\s+-?)(?P<duration>{_DURATION})(?=\]|:|\b)")


def seconds(text: str) -> float:
    """Read a duration as Prometheus writes it: `1h30m`.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(_DURATION, text):
        raise ValueError(f"{text!r} is no duration such as 30s or 1h30m")
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def divided(text: str, factor: float, least_s: float = 0.0) -> str:
    """Divide a duration, but not to less than `least_s`, or than a millisecond; 0 stays 0."""
    given_s = seconds(text)
    if not given_s:
        return "0s"
    whole_ms = max(1, round(max(given_s / factor, min(least_s, given_s)) * 1000))
    return f"{whole_ms}ms" if whole_ms % 1000 else f"{whole_ms // 1000}s"


def scaled(groups: dict[str, Any], factor: float, least_s: float = 0.0) -> dict[str, Any]:
    """Give a rule file's content with every duration divided.

    Args:
        factor: More than 0; below 1 the world is slow.
        least_s: No window becomes shorter than that.
    """

    def query(text: str) -> str:
        return _IN_QUERY.sub(lambda found: found["before"] + divided(found["duration"], factor, least_s), text)

    def entry(given: dict[str, Any]) -> dict[str, Any]:
        times = {key: divided(str(given[key]), factor) for key in KEYS if key in given}
        return given | times | ({"expr": query(given["expr"])} if "expr" in given else {})

    made = [entry(group) | {"rules": [entry(rule) for rule in group["rules"]]} for group in groups["groups"]]
    return groups | {"groups": made}


def write(folder: Path, factor: float, least_s: float = 0.0) -> None:
    """Write the rules of the stack into a folder, under their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(RULES.glob("*.yml")):
        made = scaled(yaml.safe_load(path.read_text()), factor, least_s)
        (folder / path.name).write_text(yaml.safe_dump(made, sort_keys=False, width=1000))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.scaled_rules", description=__doc__.split("\n")[0])
    parser.add_argument("factor", type=float, help="by which durations are divided")
    parser.add_argument("folder", type=Path, help="where the rule files go")
    parser.add_argument("--least", type=float, default=0.0, metavar="S", help="no window becomes shorter (default: 0)")
    given = parser.parse_args()
    if given.factor <= 0:
        parser.error(f"factor is {given.factor:g}; give more than 0")
    write(given.folder, given.factor, given.least)


if __name__ == "__main__":
    main()
