"""docs/configuration.md against the schema: every key with its type and default, and none that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmswap.config.presets import PRESETS
from llmswap.config.schema import json_schema

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \| (llama-swap|llmsnap|llmswap) \|$", re.MULTILINE)

# Mappings from names of the user's choice to sections have tables of their own, under this name.
TABLES = {
    "ModelSection": "models.ID",
    "GroupSection": "groups.NAME",
    "MatrixSection": "matrix",
    "PeerSection": "peers.ID",
    "SelectorSection": "selectors.ID",
    "ProfileSection": "profiles.NAME",
    "FiltersSection": "filters",
    "TimeoutsSection": "timeouts",
    "PeerTimeoutsSection": "timeouts",
    "StepSection": "sleepEndpoints[]",
}


def expected() -> dict[str, tuple[str, str]]:
    """Give every key of the schema, `table.key.key`, with type and default as the page writes them."""
    schema = json_schema()
    rows = dict(_rows(schema["properties"], schema.get("required", ()), "", schema["$defs"]))
    for name, table in TABLES.items():
        if name != "PeerTimeoutsSection":  # the same keys; the peers' row tells the one other default
            section = schema["$defs"][name]
            rows |= dict(_rows(section["properties"], section.get("required", ()), f"{table}.", schema["$defs"]))
    return rows


def _rows(
    keys: dict[str, Any], required: Any, path: str, defs: dict[str, Any]
) -> Iterator[tuple[str, tuple[str, str]]]:
    for key, value in keys.items():
        name = _section(value)
        yield path + key, (_kind(value), "required" if key in required else _default(value, name))
        if name is not None and name not in TABLES:
            yield from _rows(defs[name]["properties"], (), f"{path}{key}.", defs)


def _section(value: dict[str, Any]) -> str | None:
    for option in (value, *value.get("anyOf", ())):
        if "$ref" in option:
            return str(option["$ref"].rpartition("/")[2])
    return None


def _kind(value: dict[str, Any]) -> str:
    options = [option for option in value.get("anyOf", [value]) if option.get("type") != "null"]
    first = options[0]
    if "anyOf" in first:
        first = first["anyOf"][0]
    if "$ref" in first or first.get("type") == "object":
        return "mapping"
    if "enum" in first:
        return " or ".join(first["enum"])
    if "const" in first:
        return str(first["const"])
    kind = first.get("type", "any")
    if isinstance(kind, list):
        return "string"
    return {"array": "list", "boolean": "bool", "number": "integer"}.get(kind, kind)


def _default(value: dict[str, Any], section: str | None) -> str:
    default = value.get("default")
    if section is not None or default in (None, [], {}, ""):
        return "-"
    if isinstance(default, bool):
        return str(default).lower()
    return (
        ", ".join(default)
        if isinstance(default, list)
        else f"`{default}`"
        if isinstance(default, str)
        else str(default)
    )


def test_the_page_has_every_key_with_its_type_and_default_and_no_other():
    written = {key: (kind, default) for key, kind, default, _ in ROW.findall(PAGE.read_text())}
    assert written == expected()


def test_the_page_says_what_each_preset_sends():
    rows = re.findall(r"^\| `([\w-]+)` \| (`/[^|]+) \| ([^|]+) \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE)
    said = {name: [re.findall("`(/[^`]+)`", steps) for steps in both] for name, *both in rows}
    assert said == {
        name: [[step.endpoint for step in steps] for steps in (preset.sleep, preset.wake)]
        for name, preset in PRESETS.items()
    }


FAIR = ("priority", "maxWait", "hold", "queueLimit")
TRACES = ("endpoint", "protocol", "sampler", "percent", "trustRemoteParent")
SLEEP = ("preset", "verify", "warmup", "canary", "sleepTimeout", "wakeTimeout", "residual", "drainTimeout")


def test_the_page_says_whose_each_key_is():
    origin = {key: whose for key, _, _, whose in ROW.findall(PAGE.read_text())}
    assert origin["models.ID.cmd"] == "llama-swap"
    assert {key for key, whose in origin.items() if whose == "llmsnap"} == {
        *("sleepRequestTimeout", "wakeRequestTimeout"),
        *("models.ID.sleepMode", "models.ID.sleepEndpoints", "models.ID.wakeEndpoints"),
        *(f"sleepEndpoints[].{key}" for key in ("endpoint", "method", "body", "timeout")),
    }
    assert {key for key, whose in origin.items() if whose == "llmswap"} == {
        *("allowUnauthenticated", "allowedHosts", "allowedOrigins", "trustedProxies", "forwardAuth"),
        *("routing.scheduler.settings.fair", *(f"routing.scheduler.settings.fair.{key}" for key in FAIR)),
        *("models.ID.priority", "models.ID.maxWait", "models.ID.unloadDelay", "models.ID.queueLimit"),
        *("upstream.allowControl", "upstream.trustPages", "queueTimeout", "queueMax"),
        *("models.ID.swapClass", "models.ID.swapClassByID", "models.ID.substitutes"),
        *("models.ID.sleep", *(f"models.ID.sleep.{key}" for key in SLEEP)),
        *("models.ID.sleepAfter", "sleepAfter", "sleepers", "sleepers.max", "sleepers.hostMemory"),
        *("gpuMemory", "gpuMemory.freed", "gpuMemory.timeout", "gpuMemory.onTimeout"),
        *("telemetry", "telemetry.traces", *(f"telemetry.traces.{key}" for key in TRACES)),
        *("telemetry.logFormat", "telemetry.compat", "telemetry.compat.llamaswap"),
        *("journal", "journal.path", "journal.maxSize", "journal.keep"),
        *("models.ID.trustProxy", "models.ID.queueTimeout", "models.ID.healthCheckTimeout"),
    }
