"""Who may live with whom, who goes first and who stands in: groups, matrix, priorities and substitutes."""

import re
from collections.abc import Mapping

from llmswap.config.issues import Issues
from llmswap.config.names import Names
from llmswap.config.schema import ConfigFile
from llmswap.config.schema_routing import GroupSection, MatrixSection
from llmswap.config.tree import Path
from llmswap.core import matrix as language
from llmswap.core.fleet import Group, MatrixRules, ModelId, Router

DEFAULT_GROUP = "(default)"
_SETTINGS: Path = ("routing", "router", "settings")
_VAR = re.compile(r"[a-zA-Z0-9.-]{1,32}")


class Routing:
    """The rules of living together, resolved.

    Attributes:
        matrix: None if the config has none, whether or not it is in use.
    """

    def __init__(self, file: ConfigFile, names: Names, issues: Issues) -> None:
        settings = file.routing.router.settings
        legacy = bool(file.groups or file.matrix)
        if legacy:
            _refuse_mixtures(file, issues)
        sections = (file.groups, ("groups",)) if file.groups else (settings.groups, (*_SETTINGS, "groups"))
        rules = (file.matrix, ("matrix",)) if file.matrix else (settings.matrix, (*_SETTINGS, "matrix"))
        use = file.routing.router.use or ("matrix" if file.matrix else "group")
        self.router = Router(use)
        self.groups = _groups(*sections, names, issues)
        self.matrix = None if rules[0] is None else _matrix(rules[0], rules[1], names, issues)
        if self.router is Router.MATRIX and self.matrix is None:
            path = ("routing", "router", "use")
            issues.error(path, "'use: matrix' needs a matrix: write one under routing.router.settings.matrix")


def priorities(file: ConfigFile, names: Names, issues: Issues) -> dict[ModelId, int]:
    """Resolve the priorities of the scheduler in use. Unlike in llama-swap, one that is given to an alias works.

    Those that an existing config gives under `fifo` count under `fair`, too, which it need not even name.
    """
    settings = file.routing.scheduler.settings
    path: Path = ("routing", "scheduler", "settings")
    found = _priorities(settings.fifo.priority, (*path, "fifo", "priority"), names, issues)
    fair = _priorities(settings.fair.priority, (*path, "fair", "priority"), names, issues)
    own = {ModelId(name): model.priority for name, model in file.models.items() if model.priority is not None}
    return found | (fair if file.routing.scheduler.use == "fair" else {}) | own


def _priorities(section: Mapping[str, int], path: Path, names: Names, issues: Issues) -> dict[ModelId, int]:
    found: dict[ModelId, int] = {}
    written: dict[ModelId, str] = {}
    for name, priority in section.items():
        model = names.find(name)
        if model is None:
            issues.error((*path, name), f"there is no model '{name}'{names.hint(name)}")
        elif found.setdefault(model, priority) != priority:
            first = written[model]
            issues.error((*path, name), f"model '{model}' already has priority {found[model]} as '{first}'; keep one")
        else:
            written.setdefault(model, name)
    return found


def substitutes(file: ConfigFile, names: Names, issues: Issues) -> dict[ModelId, tuple[ModelId, ...]]:
    """Resolve every model's substitutes, in the order of the file."""
    found: dict[ModelId, tuple[ModelId, ...]] = {}
    for model, section in file.models.items():
        listed: dict[ModelId, str] = {}
        for index, name in enumerate(section.substitutes):
            path = ("models", model, "substitutes", index)
            substitute = names.find(name)
            if substitute is None:
                issues.error(path, f"there is no model '{name}'{names.hint(name)}")
            elif substitute == model:
                issues.error(path, f"'{name}' is this model itself; name others that can serve in its place")
            elif substitute in listed:
                issues.error(
                    path, f"'{name}' is model '{substitute}', which is listed as '{listed[substitute]}'; keep one"
                )
            else:
                listed[substitute] = name
        found[ModelId(model)] = tuple(listed)
    return found


def _refuse_mixtures(file: ConfigFile, issues: Issues) -> None:
    if file.groups and file.matrix:
        other = issues.line_of(("groups",))
        issues.error(("matrix",), f"config cannot use both 'groups' ({other}) and 'matrix'; remove one")
    router = file.routing.router
    if router.use is not None or router.settings.groups or router.settings.matrix:
        old = "groups" if file.groups else "matrix"
        other = issues.line_of(("routing", "router"))
        issues.error(
            (old,),
            f"'{old}' cannot be used with routing.router ({other}): migrate it to {'.'.join(map(str, _SETTINGS))}",
        )


def _groups(sections: Mapping[str, GroupSection], path: Path, names: Names, issues: Issues) -> tuple[Group, ...]:
    """Partition the models. Those in no group join `(default)`, which the user may define like any other."""
    taken: dict[ModelId, Path] = {}
    members = {
        name: [
            model
            for index, member in enumerate(section.members)
            if (model := _member(member, (*path, name, "members", index), names, taken, issues)) is not None
        ]
        for name, section in sections.items()
    }
    rest = [ModelId(name) for name, model in names.ids.items() if name == model and model not in taken]
    if rest:
        members.setdefault(DEFAULT_GROUP, []).extend(rest)
    groups = []
    for name, models in members.items():
        section = sections.get(name, GroupSection())
        groups.append(Group(name, tuple(models), section.swap, section.exclusive, section.persistent))
    return tuple(groups)


def _member(name: str, path: Path, names: Names, taken: dict[ModelId, Path], issues: Issues) -> ModelId | None:
    model = names.find(name)
    if model is None:
        issues.error(
            path, f"there is no model '{name}'{names.hint(name)}; models are defined in {issues.line_of(('models',))}"
        )
        return None
    if model != name:
        issues.warn(path, f"'{name}' is an alias: the group takes its model, '{model}'")
    if model in taken:
        first = taken[model]
        where = "twice in this group" if first[:-2] == path[:-2] else f"already in group '{first[-3]}'"
        issues.error(path, f"model '{model}' is {where} ({issues.line_of(first)}); a model is in one group only")
        return None
    taken[model] = path
    return model


def _matrix(section: MatrixSection, path: Path, names: Names, issues: Issues) -> MatrixRules | None:
    """Check what only the file can show, then let the language check the expressions."""
    models = {model for name, model in names.ids.items() if name == model}
    for var, target in section.vars.items():
        if not _VAR.fullmatch(var):
            issues.error((*path, "vars", var), f"var '{var}' must be 1 to 32 letters, digits, `.` or `-`")
        if target not in models and names.find(target) is not None:
            message = f"'{target}' is an alias; write the model's id, '{names.find(target)}'"
            issues.error((*path, "vars", var), message)
    costs: dict[ModelId, int] = {}
    for name, cost in section.evict_costs.items():
        model = ModelId(section.vars.get(name, name))
        if costs.setdefault(model, cost) != cost:
            issues.error((*path, "evict_costs", name), f"model '{model}' already has another cost; keep one")
    variables = {var: ModelId(target) for var, target in section.vars.items()}
    rules = MatrixRules(variables, dict(section.sets), costs)
    for problem in language.validate(rules, models):
        where, _, message = problem.partition(": ")
        kind, _, name = where.partition(".")
        place = (*path, kind, name) if name else (*path, kind)
        if not (kind == "vars" and names.find(variables.get(name, "")) is not None):
            issues.error(place, message)
    return rules
