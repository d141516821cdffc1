"""Write every board: `python -m grafana.generate [DIRECTORY]`, by default into `grafana/dashboards`."""

import argparse
import json
from pathlib import Path

from grafana.generate.boards import EVERY
from grafana.generate.frame import dashboard

DASHBOARDS = Path(__file__).parents[1] / "dashboards"


def boards() -> dict[str, str]:
    """Give file name -> text of every board."""
    return {f"{board.uid}.json": json.dumps(dashboard(board), indent=2, ensure_ascii=False) + "\n" for board in EVERY}


def write(directory: Path) -> list[Path]:
    """Write every board, and remove what is no board any more."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = boards()
    for path in directory.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in texts]


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=DASHBOARDS)
    for path in write(parser.parse_args().directory):
        print(path)


if __name__ == "__main__":
    main()
