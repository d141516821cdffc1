"""Runs the demo: writes the scenery, starts the real program over it, lets the clients loose, shows and sums up."""

import asyncio
import contextlib
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from llmswap.app import App, Options, reader, running_app
from llmswap.demo.clients import SCRIPTS, Client, curl, session
from llmswap.demo.gpus import simulated
from llmswap.demo.screen import Scene, Terminal, wants_colour
from llmswap.demo.stage import GPU_GIB, PLOT, is_free, ledger_path, write_config
from llmswap.demo.story import Line, Story
from llmswap.fake_upstream.ledger import Holder, Ledger

FRAME_S = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for.

    Attributes:
        duration_s: None means until told to stop.
        time_scale: Multiplies every delay of the simulated engines and of the clients.
        plain: A line per event, also on a terminal.
        journal: Where the journal is kept; None for the demo's own folder.
    """

    port: int
    duration_s: float | None
    time_scale: float
    seed: int
    plain: bool
    journal: Path | None


async def show(wishes: Wishes) -> int:
    """Run it from start to summary; gives the exit code: 1 if a client was let down."""
    port = wishes.port
    if port and not is_free(port):
        _print(f"port {port} is taken by another program, so this takes a free one")
        port = 0
    on_screen = sys.stdout.isatty() and not wishes.plain
    story = Story(None if on_screen else _print_line)
    with tempfile.TemporaryDirectory(prefix="llmswap-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        journal = wishes.journal or folder / "journal.jsonl"
        config = write_config(folder, wishes.time_scale, journal)
        options = Options(config=config, listen=f"127.0.0.1:{port}", state_dir=folder / "state")
        async with running_app(options, reader(options), simulated(ledger_path(folder))) as app:
            app.loop.observe(story)
            performance = _Performance(app, story, folder, journal, wishes)
            with Terminal(colour=wants_colour()) if on_screen else contextlib.nullcontext() as terminal:
                await performance.play(terminal)
            _print("stopping the simulated servers")
    _print(story.summary())
    if app.journal.trouble:
        _print(f"It could not be recorded in {journal}: {app.journal.trouble}")
    elif wishes.journal is not None:
        _print(f"It is recorded: {_program()} simulate {shlex.quote(str(journal))}")
    return 1 if any(client.failed for client in performance.clients) else 0


class _Performance:
    """The clients at work, watched."""

    def __init__(self, app: App, story: Story, folder: Path, journal: Path, wishes: Wishes) -> None:
        self._app, self._story, self._wishes = app, story, wishes
        self._url = app.addresses[0]
        self._ledger = Ledger(ledger_path(folder), GPU_GIB, 0.0, Holder("demo"))
        self._tips = (
            "Try it, in another terminal:",
            *f"  {curl(self._url, 'coder')}".splitlines(),
            f"  curl {self._url}/v1/models",
            f"  {_program()} status --url {self._url}",
            f"  less {folder / 'config.yaml'}",
            *(f"  {_program()} {command} {shlex.quote(str(journal))}" for command in ("simulate", "replay")),
        )
        self.clients = [
            Client(name, model, self._url, wishes.time_scale, Random(f"{wishes.seed}/{name}"), story.add)
            for name, model, _ in SCRIPTS
        ]

    async def play(self, terminal: Terminal | None) -> None:
        """Let the clients loose until the time is up or a signal comes."""
        over = self._over_on_signal()
        if terminal is None:
            _print("\n".join([f"llmswap serves at {self._url}; Ctrl-C ends it", *self._tips]))
        async with session() as http, asyncio.TaskGroup() as group:
            scripts = [
                group.create_task(script(client, http), name=client.name)
                for client, (_, _, script) in zip(self.clients, SCRIPTS, strict=True)
            ]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wishes.duration_s):
                    await (over.wait() if terminal is None else self._animate(terminal, over))
            for task in scripts:
                task.cancel()

    def _over_on_signal(self) -> asyncio.Event:
        """Give the event that the first signal sets; a second signal ends the drain, too."""
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def on_signal() -> None:
            if over.is_set():
                self._app.request_stop()
            over.set()

        for number in SIGNALS:
            loop.add_signal_handler(number, on_signal)
        return over

    async def _animate(self, terminal: Terminal, over: asyncio.Event) -> None:
        while not over.is_set():
            terminal.draw(self._scene())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), FRAME_S)

    def _scene(self) -> Scene:
        held: Counter[str] = Counter()
        for entry in self._ledger.entries():
            held[entry.name] += entry.gib  # type: ignore[assignment]  # a Counter of GiB
        wanted = self._wishes.port
        moved = f" (port {wanted} was taken)" if wanted and not self._url.endswith(f":{wanted}") else ""
        scale = self._wishes.time_scale
        speed = f", {1 / scale:g} x fast" if 0 < scale < 1 else ""
        return Scene(
            title=f"llmswap demo   {self._url}{moved}   Ctrl-C ends it",
            plot=PLOT.format(speed=speed),
            now_s=time.monotonic(),
            snapshot=self._app.loop.snapshot(),
            story=self._story,
            clients=self.clients,
            held=held,
            tips=self._tips,
        )


def _program() -> str:
    """Give the command that runs llmswap here, installed on the PATH or not."""
    called = sys.argv[0]
    return called if Path(called).name == "llmswap" else f"{sys.executable} -m llmswap"


def _print_line(line: Line) -> None:
    _print(f"{line.at_s:7.1f}s  {line.text}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
