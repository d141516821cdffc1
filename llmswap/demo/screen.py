"""The demo's view: a pure function from what is known to lines of text, and the terminal that shows them."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from llmswap.core.fleet import ModelId
from llmswap.core.snapshot import Snapshot, UpstreamView
from llmswap.demo.clients import Client
from llmswap.demo.stage import CAST, GPU_GIB
from llmswap.demo.story import Line, Story

RESET = "\x1b[0m"
STYLES = {"bold": "\x1b[1m", "dim": "\x1b[2m", "load": "\x1b[36m", "evict": "\x1b[33m", "bad": "\x1b[31m",
          "good": "\x1b[32m", "client": ""}  # fmt: skip
STATE_STYLES = {"ready": "good", "starting": "load", "stopping": "evict", "failed": "bad", "stopped": "dim"}
MARKS = {"ready": "●", "starting": "◐", "stopping": "◑", "failed": "✗"}
BAR_MOST = 40
NARROWEST = 40


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a frame shows.

    Attributes:
        now_s: Monotonic time of the frame.
        held: Model -> GiB it holds now.
        tips: Lines that say what to try.
    """

    title: str
    plot: str
    now_s: float
    snapshot: Snapshot
    story: Story
    clients: Sequence[Client]
    held: Mapping[str, float]
    tips: Sequence[str]


def frame(scene: Scene, width: int, height: int) -> list[list[tuple[str, str]]]:
    """Draw a frame: rows of (style, text) pieces, each row at most `width` wide, at most `height` rows."""
    head = [[("bold", scene.title)], [("dim", scene.plot)], []]
    body = [*_models(scene), [], *_gpu(scene, width), [], *_clients(scene), []]
    summary = [[("bold", line)] for line in scene.story.summary().splitlines()]
    foot = [[], *summary, [], *[[("dim", tip)] for tip in scene.tips]]
    room = height - len(head) - len(body) - len(foot) - 1
    if room < 2:  # a small window: what happened last matters more than what one could try
        foot = []
        room = height - len(head) - len(body) - 1
    events = [[("bold", "WHAT HAPPENED")], *map(_event, list(scene.story.lines)[-room:])] if room > 0 else []
    rows = [*head, *body, *events, *[[]] * max(0, room + 1 - len(events)), *foot]
    return [_clip(row, max(NARROWEST, width)) for row in rows[:height]]


def _models(scene: Scene) -> list[list[tuple[str, str]]]:
    rows = [[("bold", f"{'MODEL':14}{'STATE':12}{'FOR':>7}{'RUNNING':>9}{'WAITING':>9}{'SERVED':>8}   MEMORY")]]
    for part in CAST:
        view = scene.snapshot.upstreams[ModelId(part.model)]
        style = STATE_STYLES.get(view.state, "")
        rows.append(
            [
                ("", f"{part.model:14}"),
                (style, f"{MARKS.get(view.state, '○')} {view.state:10}"),
                ("", f"{scene.now_s - view.since_s:6.1f}s"),
                ("", f"{view.in_flight:9}"),
                ("evict" if view.waiting else "", f"{view.waiting:9}"),
                ("", f"{scene.story.served[view.model]:8}"),
                ("dim", f"   {part.gib:g} GiB{_note(view)}"),
            ]
        )
    return rows


def _note(view: UpstreamView) -> str:
    return f"  {view.failure}" if view.failure else ""


def _gpu(scene: Scene, width: int) -> list[list[tuple[str, str]]]:
    cells = min(BAR_MOST, max(10, width - 40))
    pieces: list[tuple[str, str]] = [("bold", "GPU ")]
    filled = 0
    for part in CAST:
        share = min(cells - filled, round(scene.held.get(part.model, 0.0) / GPU_GIB * cells))
        if share:
            state = scene.snapshot.upstreams[ModelId(part.model)].state
            pieces.append((STATE_STYLES.get(state, ""), part.model[:share].center(share, "█")))
            filled += share
    pieces.append(("dim", "░" * (cells - filled)))
    return [[*pieces, ("", f" {sum(scene.held.values()):g} of {GPU_GIB:g} GiB")]]


def _clients(scene: Scene) -> list[list[tuple[str, str]]]:
    rows: list[list[tuple[str, str]]] = [[("bold", f"{'CLIENT':14}DOES")]]
    for client in scene.clients:
        pieces = [_asks(client, model, scene.now_s) for model in sorted({ask.model for ask in client.asks})]
        doing = pieces or [("dim", "thinks")]
        rows.append([("", f"{client.name:14}"), *doing])
    return rows


def _asks(client: Client, model: str, now_s: float) -> tuple[str, str]:
    asks = [ask for ask in client.asks if ask.model == model]
    waits = [now_s - ask.began_s for ask in asks if ask.first_s is None]
    many = f"{len(asks)} x " if len(asks) > 1 else ""
    if waits:
        return "evict", f"{many}waits for {model}, {max(waits):.1f} s   "
    return "good", f"{many}reads from {model}, {sum(ask.tokens for ask in asks)} tokens   "


def _event(line: Line) -> list[tuple[str, str]]:
    return [("dim", f"{line.at_s:7.1f}s  "), (line.kind, line.text)]


def _clip(row: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    clipped, left = [], width - 1
    for style, text in row:
        clipped.append((style, text[:left]))
        left -= len(text[:left])
    return clipped


class Terminal:
    """Draws frames in place on the alternate screen, and leaves the terminal as it was."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._last = ""

    def __enter__(self) -> Self:
        self._write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("\x1b[?7h\x1b[?25h\x1b[?1049l")

    def draw(self, scene: Scene) -> None:
        """Show a frame, in one write, if it differs from the last one."""
        size = shutil.get_terminal_size()
        rows = frame(scene, size.columns, size.lines)
        text = "\x1b[H" + "\x1b[K\r\n".join(map(self._paint, rows)) + "\x1b[K\x1b[J"
        if text != self._last:
            self._last = text
            self._write(text)

    def _paint(self, row: list[tuple[str, str]]) -> str:
        if not self._colour:
            return "".join(text for _, text in row)
        return "".join(f"{STYLES[style]}{text}{RESET}" if STYLES.get(style) else text for style, text in row)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def wants_colour() -> bool:
    """Say whether colour is welcome (NO_COLOR)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
