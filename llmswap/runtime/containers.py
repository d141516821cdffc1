"""A container that a command runs: its client is a process of ours, the container is the daemon's, and goes with it.

It is known by a label that we add to `docker run`: so nothing else is ever removed, and it needs no name. What has a
name is not started before that is free.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath

from llmswap.runtime.process import Process
from llmswap.runtime.spawn import SpawnError
from llmswap.runtime.stopping import clear, first_of

LABEL = "llmswap.life"
# A daemon that needs longer for an answer hangs.
ANSWER_LIMIT_S = 10.0
# `--rm` may still be at work on the last container of that name.
NAME_LIMIT_S = 10.0
# After this it counts as stuck, and is tried again less often.
REMOVE_LIMIT_S = 10.0
DAEMON_FAILED = 125  # the exit code of a client whose container was not run
_POLL_S = 0.1
_STUCK_POLL_S = 2.0
_RUNNERS = frozenset({"docker", "podman", "nerdctl"})
_BEFORE = frozenset({"sudo", "doas", "env", "nice", "nohup", "exec"})
_FLAGS = frozenset({"-D", "--debug", "--tls", "--tlsverify", "-r", "--remote"})  # global ones without a value

Helper = Callable[[Sequence[str], Callable[[bytes], None]], Process]


class Container:
    """What one `docker run` starts.

    Args:
        words: Of the command, as it is configured.
        client: Those of them that any request to the daemon begins with.
        run: Where in them `run` stands.
        tag: Of the life.
        helper: Starts a client of ours.

    Attributes:
        argv: The command to start, with our label.
    """

    def __init__(self, words: Sequence[str], client: Sequence[str], run: int, tag: str, helper: Helper) -> None:
        self._mark = f"{LABEL}={tag}"
        self.argv = [*words[: run + 1], "--label", self._mark, *words[run + 1 :]]
        self._client = client
        self._name = _name(words[run + 1 :])
        self._helper = helper

    async def name_taken(self, stop: asyncio.Future[None]) -> str:
        """Wait until its name is free, or `stop`; give a line if it stays taken. A daemon that fails says so itself."""
        deadline_s = time.monotonic() + NAME_LIMIT_S
        while self._name and not stop.done():
            failed, said = await self._ask("ps", "--all", "--filter", f"name={self._name}", "--format", "{{.Names}}")
            if failed or self._name not in said.replace(",", " ").split():
                break
            if time.monotonic() > deadline_s:
                return f"the name {self._name} is taken by another container; remove that"
            await first_of(_POLL_S, stop)
        return ""

    async def remove(
        self, hurry: asyncio.Future[None], *, born: bool, last: Callable[[], bool], on_stuck: Callable[[str], None]
    ) -> None:
        """See to it that it is gone, however long that takes; only what ends llmswap gives up.

        Args:
            hurry: When done, one try must do.
            born: It may have been started: then a daemon that cannot be asked is asked again.
            last: Whether nothing will be started after it: then REMOVE_LIMIT_S must do.
            on_stuck: Told once why it is still there after that.
        """
        deadline_s: float | None = time.monotonic() + REMOVE_LIMIT_S
        while True:
            failed, said = await self._ask("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={self._mark}")
            if not (failed or said.split()) or (failed and not born):
                return
            if not failed:
                _, said = await self._ask("rm", "--force", *said.split())
            if deadline_s is not None and time.monotonic() > deadline_s:
                lines = [line for line in said.splitlines() if line.strip() and not is_hint(line)]
                on_stuck(f"its container cannot be removed: {lines[-1] if lines else 'no answer'}")
                deadline_s = None
            if hurry.done() or (deadline_s is None and last()):
                return
            await first_of(_POLL_S if deadline_s is not None else _STUCK_POLL_S, hurry)

    async def _ask(self, *words: str) -> tuple[bool, str]:
        """Ask the daemon; gives whether that failed, and what was said."""
        heard = bytearray()
        try:
            process = self._helper([*self._client, *words], heard.extend)
        except SpawnError as error:
            return True, str(error)
        await first_of(ANSWER_LIMIT_S, process.exited)
        answered = process.exited.done() and process.exited.result().code == 0
        await clear(process.tree, polite=False)
        await process.exited
        process.release()
        return not answered, heard.decode(errors="replace")


def find(words: Sequence[str], tag: str, helper: Helper) -> Container | None:
    """Tell whether a command runs a container; only if that is plain: a script, or a shell's, is not looked into."""
    at = next((index for index, word in enumerate(words) if PurePath(word).name in _RUNNERS), len(words))
    if not all(PurePath(word).name in _BEFORE or word.startswith("-") or "=" in word for word in words[:at]):
        return None
    run = at + 1
    while run < len(words) and words[run].startswith("-"):
        run += 1 if "=" in words[run] or words[run] in _FLAGS else 2
    client = words[:run]
    if words[run : run + 1] == ["container"]:
        run += 1
    return Container(words, client, run, tag, helper) if words[run : run + 1] == ["run"] else None


def is_hint(line: str) -> bool:
    """Tell whether a client only says where help is; its reason stands before that."""
    return re.match(r"(Run|See) '\S+ .*--help'", line.strip()) is not None


def _name(options: Sequence[str]) -> str:
    """Find `--name`, before the image's own arguments, which begin with the second word in a row without a hyphen."""
    before = "-"
    for index, word in enumerate(options):
        if word == "--name":
            return next(iter(options[index + 1 :]), "")
        if word.startswith("--name="):
            return word.partition("=")[2]
        if not word.startswith("-") and not before.startswith("-"):
            break
        before = word
    return ""
