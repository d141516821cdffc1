"""Keys that llmswap reads and checks but does not act on yet. Each that is used brings a warning."""

import os
from collections import Counter
from urllib.parse import urlsplit

from llmswap.config.issues import Issues
from llmswap.config.names import Names
from llmswap.config.schema import ConfigFile, SelectorSection
from llmswap.config.tree import Path
from llmswap.core.fleet import Fleet, Router
from llmswap.core.matrix import Matrix

_NOT_YET = {
    "profiles": "profiles",
    "selectors": "selectors",
    "peers": "peers",
    "store": "store",
    "capture_buffer": "captureBuffer",
    "metrics_max_in_memory": "metricsMaxInMemory",
    "ui": "ui",
}


def check_later(file: ConfigFile, names: Names, fleet: Fleet, issues: Issues) -> None:
    """Warn about keys that have no effect yet, and check them as llama-swap would."""
    if "log_requests" in file.model_fields_set:
        issues.warn(("logRequests",), "is obsolete and has no effect; remove it")
    for field, key in _NOT_YET.items():
        if field in file.model_fields_set:
            issues.warn((key,), "is not supported yet and has no effect")
    _check_store(file, issues)
    _Virtual(file, names, fleet, issues).check()


def _check_store(file: ConfigFile, issues: Issues) -> None:
    if file.store is None:
        return
    path = file.store.path.strip()
    if not path:
        issues.error(("store", "path"), "must not be empty")
    elif os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises where we may not look
        issues.error(("store", "path"), "is a directory; name a file in it")
    elif not os.path.isdir(os.path.dirname(path) or "."):  # noqa: PTH112, PTH120
        issues.error(("store", "path"), "lies in a directory that does not exist, or is out of reach; create it")


class _Virtual:
    """Names that stand for other names: peers' models, selectors and profile pins."""

    def __init__(self, file: ConfigFile, names: Names, fleet: Fleet, issues: Issues) -> None:
        self._file = file
        self._names = names
        self._fleet = fleet
        self._issues = issues
        self._full: dict[str, tuple[str, str]] = {}  # peer/model -> (peer, model)
        offers = Counter(model for peer in file.peers.values() for model in set(peer.models))
        self._bare = {model for model, peers in offers.items() if peers == 1}

    def check(self) -> None:
        """Check them all."""
        self._peers()
        for selector, section in self._file.selectors.items():
            self._selector(selector, section)
        self._profiles()

    def _peers(self) -> None:
        pins = {pin for profile in self._file.profiles.values() for pin in profile.pins}
        for peer, section in self._file.peers.items():
            if not _is_url(section.proxy):
                self._issues.error(("peers", peer, "proxy"), "must be a URL such as https://llm.example.org")
            for index, model in enumerate(section.models):
                full, path = f"{peer}/{model}", ("peers", peer, "models", index)
                if self._full.setdefault(full, (peer, model)) != (peer, model):
                    self._issues.error(path, f"'{full}' is ambiguous: peer '{self._full[full][0]}' has it, too")
                for taken, what in (
                    (self._names.ids, "a model or alias"),
                    (self._file.selectors, "a selector"),
                    (pins, "a profile's pin"),
                ):
                    if full in taken:
                        self._issues.error(path, f"'{full}' is already the name of {what}")

    def _selector(self, selector: str, section: SelectorSection) -> None:
        path = ("selectors", selector)
        if not selector.strip():
            self._issues.error(path, "a selector needs a name")
        if selector in self._names.ids or selector in self._full:
            self._issues.error(path, f"'{selector}' is already the name of a model, an alias or a peer's model")
        found: dict[str, int] = {}
        for index, target in enumerate(section.targets):
            self._target(target, section.strategy, found, index, (*path, "targets", index))
        if section.strategy == "spillover" and not self._coexist(
            [name for name in found if name in self._fleet.models]
        ):
            self._issues.error((*path, "targets"), "the targets cannot run at the same time under the groups or matrix")

    def _target(self, target: str, strategy: str, found: dict[str, int], index: int, path: Path) -> None:
        local = self._names.find(target)
        if target in self._file.selectors:
            self._issues.error(path, f"'{target}' is a selector; selectors cannot be chained")
        elif local is None and not self._is_remote(target):
            self._issues.error(path, f"there is no model '{target}'{self._names.hint(target)}")
        elif local is None and strategy == "warm":
            self._issues.error(path, f"'{target}' belongs to a peer; strategy warm takes local models only")
        elif found.setdefault(local or target, index) != index and strategy == "spillover":
            self._issues.error(path, f"'{target}' leads to a model that is already a target")

    def _is_remote(self, name: str) -> bool:
        return name in self._full or name in self._bare

    def _coexist(self, targets: list[str]) -> bool:
        if len(targets) < 2:
            return True
        models = {self._names.ids[target] for target in targets}
        if self._fleet.router is Router.GROUP:
            return any(not group.swap and models <= set(group.members) for group in self._fleet.groups)
        if self._issues or self._fleet.matrix is None:
            return True  # a matrix with errors answers no questions
        return Matrix(self._fleet.matrix, self._fleet.models.keys()).allows(models)

    def _profiles(self) -> None:
        for profile, section in self._file.profiles.items():
            for pin, target in section.pins.items():
                path = ("profiles", profile, "pins", pin)
                if not pin.strip():
                    self._issues.error(path, "a pin needs a name")
                if not target:
                    continue
                if target in section.pins:
                    self._issues.error(path, f"'{target}' is another pin; pins cannot be chained")
                elif not (self._names.find(target) or self._is_remote(target) or target in self._file.selectors):
                    self._issues.error(path, f"there is no model '{target}'{self._names.hint(target)}")


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.scheme in {"http", "https"} and url.hostname)
    except ValueError:
        return False
