"""The boards held to Grafana's own code, of the version that is in the stack: its types, transformations and formats.

There is no Grafana to be had here, but its libraries are, from npm: what a board may hold, and what becomes of its data
until it is drawn. Only drawing is not tested.
"""

import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.generate.palette import CLEAR
from tests.grafana.boards import ROOT, committed, shown
from tests.promql.reading import labels

pytestmark = [pytest.mark.real, pytest.mark.timeout(420)]

HERE = Path(__file__).parent / "schema"
INSTALL_LIMIT_S = 300
FIRST_ROWS = 3


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what package.json names, if that has not been done since it changed."""
    stamp = HERE / "node_modules" / ".ready"
    wanted = (HERE / "package.json").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=HERE, check=True, timeout=INSTALL_LIMIT_S, stdin=subprocess.DEVNULL)
        stamp.write_text(wanted)
    return HERE / "node_modules"


def test_these_are_the_libraries_of_the_grafana_in_the_stack():
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["image"]
    versions = json.loads((HERE / "package.json").read_text())["devDependencies"]
    release = re.search(r":(\d+\.\d+)\.", image)
    assert release is not None
    assert {version.rpartition(".")[0] for name, version in versions.items() if "grafana" in name} == {release.group(1)}


def _checked(node: Path, folder: Path, boards: dict[str, dict[str, Any]]) -> str:
    """Let the compiler compare boards with the types; gives what it says."""
    for name in ("house.ts", "tsconfig.json"):
        (folder / name).write_text((HERE / name).read_text())
    (folder / "node_modules").symlink_to(node)
    for name, board in boards.items():
        text = f"import type {{ Board }} from './house';\nexport const board: Board = {json.dumps(board, indent=1)};\n"
        (folder / f"{name.removesuffix('.json')}.ts").write_text(text)
    command = [node / ".bin" / "tsc", "-p", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode == 0) == (not done.stdout)
    return done.stdout + done.stderr


def test_a_board_holds_what_grafanas_types_allow(node, tmp_path):
    assert _checked(node, tmp_path, committed()) == ""


def test_the_types_find_a_wrong_word(node, tmp_path):
    board = json.loads(json.dumps(committed()["llmswap-swaps.json"]))
    board["panels"][0]["options"]["grafMode"] = "area"
    board["panels"][1]["fieldConfig"]["defaults"]["color"]["mode"] = "shiny"
    (table,) = [panel for panel in board["panels"] if panel["title"] == "GPU time lost, by caller"]
    table["fieldConfig"]["overrides"][0]["properties"] += [
        {"id": "custom.cellWidth", "value": 80},
        {"id": "custom.cellOptions", "value": {"type": "gouge"}},
    ]
    said = _checked(node, tmp_path, {"wrong.json": board})
    assert "grafMode" in said
    assert "custom.cellWidth" in said
    assert "gouge" in said
    assert "shiny" in said


def _frame(target: dict[str, Any], alone: bool) -> dict[str, Any]:
    """Give what Prometheus' data source would answer to a table's query: a few rows with the labels it can have."""
    known = labels(target["expr"])
    assert known, target["expr"]
    value = "Value" if alone else f"Value #{target['refId']}"
    names = [f"x-{number}" for number in range(FIRST_ROWS)]
    fields = [{"name": "Time", "type": "time", "values": [1] * FIRST_ROWS}]
    fields += [{"name": label, "type": "string", "values": names} for label in sorted(known)]
    fields.append({"name": value, "type": "number", "values": [float(number) for number in range(FIRST_ROWS)]})
    return {"refId": target["refId"], "fields": fields}


def _colours(thing: Any) -> set[str]:
    """Find every colour that is named anywhere in a board."""
    if isinstance(thing, dict):
        own = {value for key, value in thing.items() if key in {"color", "fixedColor"} and isinstance(value, str)}
        return own.union(*map(_colours, thing.values()))
    return set().union(*map(_colours, thing)) if isinstance(thing, list) else set()


class Seen:
    """What Grafana makes of every table; and what it knows."""

    def __init__(self, node: Path) -> None:
        self.tables = [
            (f"{board['uid']} / {panel['title']}", panel)
            for board in committed().values()
            for panel in shown(board)
            if panel["type"] == "table" and "expr" in panel["targets"][0]
        ]
        asked = [
            {"panel": panel, "frames": [_frame(target, len(panel["targets"]) == 1) for target in panel["targets"]]}
            for _, panel in self.tables
        ]
        self.named = sorted(set().union(*map(_colours, committed().values())))
        command = ["node", HERE / "show.cjs"]
        done = subprocess.run(
            command,
            input=json.dumps({"panels": asked, "colours": self.named}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        self.known: dict[str, list[str]] = said["known"]
        self.colours: dict[str, str] = said["colours"]
        self.frames: list[list[list[dict[str, Any]]]] = said["shown"]


@functools.cache
def _seen(node: Path) -> Seen:
    return Seen(node)


def test_grafana_knows_every_colour_unit_and_transformation(node):
    seen = _seen(node)
    unknown = {name for name in seen.named if seen.colours[name] == name and not name.startswith(("#", "rgb"))}
    assert unknown <= {CLEAR}
    for board in committed().values():
        for panel in shown(board):
            defaults = panel["fieldConfig"]["defaults"] if panel["type"] != "text" else {"unit": "none"}
            assert defaults["unit"] in seen.known["units"], panel["title"]
            assert defaults.get("color", {"mode": "fixed"})["mode"] in seen.known["modes"], panel["title"]
            used = {step["id"] for step in panel.get("transformations", [])}
            assert used <= set(seen.known["transformations"]), panel["title"]


def test_a_table_becomes_one_and_has_the_columns_that_it_talks_about(node):
    seen = _seen(node)
    for (place, panel), frames in zip(seen.tables, seen.frames, strict=True):
        assert len(frames) == 1, place
        (fields,) = frames
        titles = [field["title"] for field in fields]
        assert "Time" not in titles, place
        assert not [title for title in titles if title.startswith("Value")], place
        changed = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        assert changed <= set(titles), place
        for order in panel["options"].get("sortBy", []):
            assert order["displayName"] in titles, place


def test_a_matrix_has_who_went_down_and_who_came_across(node):
    seen = _seen(node)
    found = [
        (panel, frames)
        for (_, panel), frames in zip(seen.tables, seen.frames, strict=True)
        if any(step["id"] == "groupingToMatrix" for step in panel["transformations"])
    ]
    assert len(found) >= 3
    for panel, ((corner, *columns),) in found:
        assert [cell["text"] for cell in corner["cells"]] == ["x-0", "x-1", "x-2"], panel["title"]
        assert [column["title"] for column in columns] == ["x-0", "x-1", "x-2"], panel["title"]
        cells = [[column["cells"][row]["text"] for column in columns] for row in range(FIRST_ROWS)]
        assert cells[0] == ["·"] * FIRST_ROWS
        assert cells[2][:2] == ["·", "·"]
        assert cells[2][2].startswith("2"), panel["title"]


def test_states_are_words_on_their_colours(node):
    seen = _seen(node)
    states = [
        next(field for field in frames[0] if field["title"] == "State")
        for (_, panel), frames in zip(seen.tables, seen.frames, strict=True)
        if any(override["matcher"]["options"] == "State" for override in panel["fieldConfig"]["overrides"])
    ]
    assert states
    for field in states:
        assert [cell["text"] for cell in field["cells"]] == ["stopped", "starting", "ready"]
        assert [cell["color"] for cell in field["cells"]][2] == seen.colours["green"]
