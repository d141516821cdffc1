"""The merged tree with its macros put in and its ports given out. What the values mean is the schema's business."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llmswap.config.command import without_comments
from llmswap.config.issues import Issues
from llmswap.config.macros import Budget, Scope, declared, report_leftovers
from llmswap.config.scalars import go_format
from llmswap.config.settings import PORT_MACRO
from llmswap.config.tree import Map, Tree

DEFAULT_START_PORT = 5800
DEFAULT_PROXY = f"http://localhost:{PORT_MACRO}"
LAST_PORT = 65535

# The port of these is settled at spawn, so `${PORT}` stays in them: a port that is taken can be avoided, and a
# model's neighbours in the file do not change what it is.
_LAUNCH_KEYS = ("cmd", "cmdStop", "env", "proxy", "checkEndpoint", "sleepEndpoints", "wakeEndpoints")


@dataclass(frozen=True, slots=True)
class Expanded:
    """The tree the schema reads.

    Attributes:
        ports: Of the models whose cmd uses `${PORT}`.
    """

    root: Map
    ports: Mapping[str, int]


def expand(root: Map, known_keys: list[str], issues: Issues) -> Expanded:
    """Put in all macros and allocate ports, in byte order of the model ids.

    Leftover macros are reported everywhere but in unknown top-level keys: those are reported as such, or hold anchors.
    """
    budget = Budget()
    scope = Scope(declared(root.get("macros"), ("macros",), issues), budget)
    result = Map()
    for key, value in root.items():
        if key == "macros":
            continue
        expanded = value if key == "models" else scope.expand(value)
        result.put(key, expanded, root.places[key])
        if key != "models" and key in known_keys:
            report_leftovers(expanded, (key,), scope.values, issues)
    ports: dict[str, int] = {}
    if isinstance(models := root.get("models"), Map):
        result["models"] = _models(models, scope, _start_port(result), ports, issues)
    if budget.left < 0:
        issues.error(("macros",), "macros expand to more text than a config can reasonably hold")
    return Expanded(result, ports)


def _start_port(root: Map) -> int:
    port = root.get("startPort")
    if isinstance(port, bool) or not isinstance(port, int | float) or not 1 <= port < math.inf:
        return DEFAULT_START_PORT
    return int(port)


def _models(models: Map, scope: Scope, start_port: int, ports: dict[str, int], issues: Issues) -> Map:
    expanded: dict[str, Tree] = {}
    for model in sorted(models, key=str.encode):
        section = Map() if models[model] is None else models[model]
        if isinstance(section, Map):
            port = start_port + len(ports)
            section, uses_port = _model(model, section, scope, port, issues)
            if uses_port:
                ports[model] = port
        expanded[model] = section
    result = Map()
    for model in models:
        result.put(model, expanded[model], models.places[model])
    return result


def _model(model: str, section: Map, scope: Scope, port: int, issues: Issues) -> tuple[Map, bool]:
    path = ("models", model)
    own = declared(section.get("macros"), (*path, "macros"), issues)
    scope = scope.inside(model, own)
    result = Map()
    for key, value in section.items():
        if key != "macros":
            expanded = scope.expand(_uncommented(key, value))
            result.put(key, _uncommented(key, expanded), section.places[key])  # macros may have brought comments
    if result.get("proxy") is None:
        result["proxy"] = DEFAULT_PROXY  # has no place of its own
    uses_port = PORT_MACRO in str(result.get("cmd"))
    if uses_port and port > LAST_PORT:
        issues.error(path, f"no port is left for this model: {port} is above {LAST_PORT}; lower startPort")
    if not uses_port and PORT_MACRO in str(result["proxy"]):
        issues.error(
            (*path, "proxy"),
            f"proxy uses {PORT_MACRO} but cmd does not - {PORT_MACRO} is only available when used in cmd; "
            f"use it in cmd, or set proxy to the upstream's address",
        )
        result["proxy"] = ""
    port_scope = scope.with_port(port)
    for key in result:
        if uses_port and key not in _LAUNCH_KEYS:
            result[key] = port_scope.expand(result[key])
        allowed = ("PORT",) * (uses_port and key in _LAUNCH_KEYS) + ("PID",) * (key == "cmdStop")
        report_leftovers(result[key], (*path, key), scope.values, issues, allowed)
    scopes = (scope, port_scope) if uses_port else (scope,)
    _expand_keys(result.get("filters"), "setParamsByID", scopes, (*path, "filters"), issues)
    _expand_keys(result, "swapClassByID", scopes, path, issues)
    return result, uses_port


def _uncommented(key: str, value: Tree) -> Tree:
    return without_comments(value) if key in {"cmd", "cmdStop"} and isinstance(value, str) else value


def _expand_keys(section: Tree, key: str, scopes: tuple[Scope, ...], path: tuple[str, ...], issues: Issues) -> None:
    """Put macros into the names that are keys of a mapping."""
    by_name = section.get(key) if isinstance(section, Map) else None
    if not isinstance(section, Map) or not isinstance(by_name, Map):
        return
    renamed, written = Map(), dict[str, str]()
    for given, value in by_name.items():
        name = given
        for scope in scopes:
            name = go_format(scope.text(name))
        where = (*path, key, given)
        report_leftovers(name, where, scopes[0].values, issues)
        if name in written:
            issues.error(where, f"'{written[name]}' and '{given}' resolve to the same value '{name}'; keep one")
        written[name] = given
        renamed.put(name, value, by_name.places[given])
    section[key] = renamed
