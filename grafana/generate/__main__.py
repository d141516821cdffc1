"""Write every board, and the sketch of its layout: `python -m grafana.generate`."""

import argparse
import json
from pathlib import Path

from grafana.generate.boards import EVERY
from grafana.generate.frame import dashboard
from grafana.generate.sketch import sketch

ROOT = Path(__file__).parents[2]
DASHBOARDS = Path("grafana", "dashboards")
PICTURES = Path("docs", "dashboards")


def files() -> dict[Path, str]:
    """Give path -> text of all that is generated."""
    found = {}
    for board in EVERY:
        made = dashboard(board)
        found[DASHBOARDS / f"{board.uid}.json"] = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        found[PICTURES / f"{board.uid}.svg"] = sketch(made)
    return found


def write(root: Path) -> list[Path]:
    """Write all of it below a folder, and remove what is generated no more."""
    texts = files()
    for folder in (DASHBOARDS, PICTURES):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for path in (root / folder).iterdir():
            if path.relative_to(root) not in texts:
                path.unlink()
    for path, text in texts.items():
        (root / path).write_text(text, encoding="utf-8")
    return list(texts)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository, or another folder")
    for path in write(parser.parse_args().root):
        print(path)


if __name__ == "__main__":
    main()
