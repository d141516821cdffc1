"""Every name a client may use, and the model behind it."""

from llmswap.config.issues import Issues
from llmswap.config.schema import ConfigFile
from llmswap.config.tree import Path
from llmswap.core.fleet import ModelId


class Names:
    """The models' ids and aliases.

    Attributes:
        ids: Name -> model: ids first, then what leads to them. An id wins over an alias.
        aliases: Model -> its names beside the id, those that `setParamsByID` and `swapClassByID` bring included.
    """

    def __init__(self, file: ConfigFile, issues: Issues) -> None:
        self._issues = issues
        self._given: dict[str, Path] = {}
        self.ids: dict[str, ModelId] = {name: ModelId(name) for name in file.models}
        self.aliases: dict[ModelId, tuple[str, ...]] = {}
        owners: dict[str, ModelId] = {}
        for name, section in file.models.items():
            model = ModelId(name)
            for index, alias in enumerate(section.aliases):
                self._alias(alias, model, ("models", name, "aliases", index), owners)
        for name, section in file.models.items():
            for alias in section.filters.set_params_by_id:
                self._by_id(alias, ModelId(name), ("models", name, "filters", "setParamsByID", alias), owners)
            for alias in section.swap_class_by_id:
                self._by_id(alias, ModelId(name), ("models", name, "swapClassByID", alias), owners)
        for alias, model in owners.items():
            self.aliases[model] = (*self.aliases.get(model, ()), alias)
        self.ids |= owners

    def _alias(self, alias: str, model: ModelId, path: Path, owners: dict[str, ModelId]) -> None:
        if alias in self._given:
            first = self._issues.line_of(self._given[alias])
            self._issues.error(
                path, f"duplicate alias '{alias}' found in model '{model}': it is also in {first}; keep one"
            )
            return
        self._given[alias] = path
        if alias not in self.ids:
            owners[alias] = model
        elif alias != model:
            other = self._issues.line_of(("models", alias))
            self._issues.warn(path, f"alias '{alias}' leads nowhere: it is the id of the model in {other}, which wins")

    def _by_id(self, alias: str, model: ModelId, path: Path, owners: dict[str, ModelId]) -> None:
        if alias in self.ids:
            if alias != model:
                other = self._issues.line_of(("models", alias))
                self._issues.error(path, f"'{alias}' is the id of another model, in {other}; choose another name")
        elif owners.setdefault(alias, model) != model:
            first = self._issues.line_of(self._given[alias])
            self._issues.error(path, f"duplicate alias '{alias}': it leads to model '{owners[alias]}' ({first})")
        else:
            self._given.setdefault(alias, path)

    def find(self, name: str) -> ModelId | None:
        """Give the model behind a name."""
        return self.ids.get(name)

    def hint(self, name: str) -> str:
        """Suggest a name that exists."""
        return self._issues.hint(name, self.ids)
