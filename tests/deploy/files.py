"""The files of the stack, read as they stand in the repository."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MAIN = ROOT / "docker-compose.yml"
OVERRIDES = tuple(sorted(DEPLOY.glob("compose.*.yml")))
CONFIGS = (DEPLOY / "llmswap.yaml", *sorted((DEPLOY / "examples").glob("*.yaml")))


def compose(path: Path = MAIN) -> dict[str, Any]:
    """Read a compose file; `<<` is merged, variables are left as they are written."""
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def own_services() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Give every service with the file that defines it: in full, so not where an override only adds to it."""
    main = compose()["services"]
    found = {name: (MAIN, service) for name, service in main.items()}
    for path in OVERRIDES:
        added = {name: service for name, service in compose(path)["services"].items() if name not in main}
        found |= {name: (path, service) for name, service in added.items()}
    return found
