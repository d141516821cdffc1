"""The journal of the running program: everything is in it, nothing secret is, and it replays byte for byte."""

import asyncio
import stat
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp

from llmswap.app import Options, running_app
from llmswap.cli import main
from llmswap.config.load import loads
from llmswap.core import commands as do
from llmswap.core import events as ev
from llmswap.journal import scribe
from llmswap.journal.codec import COMMANDS, EVENTS
from llmswap.journal.reader import Entry, Recording
from tests.dialogue import ask, finish, listening
from tests.stack import fake, until

KEY = "sk-canary-of-an-api-key"
PROMPT = "canary of a prompt"
ENVIRONMENT = "canary-of-an-environment"
LAST_WORDS = "canary of last words"
CANARIES = (KEY, PROMPT, ENVIRONMENT, LAST_WORDS)


def config(path, **more):
    models = {
        "a": {"cmd": fake("a"), "env": [f"HF_TOKEN={ENVIRONMENT}"]},
        "b": {"cmd": fake("b"), "aliases": ["bee"]},
        "c": {"cmd": fake("c", itl=20, output_tokens="exact:2000")},
        "broken": {"cmd": f"sh -c 'echo {LAST_WORDS} >&2; exit 3' ${{PORT}}"},
        "sulks": {"cmd": fake("sulks"), "priority": 3, "ttl": 1, "concurrencyLimit": 1},
    }
    groups = {"pair": {"members": ["a", "b"], "swap": False}, "alone": {"members": ["c", "broken", "sulks"]}}
    return {
        "apiKeys": [KEY],
        "journal": {"path": str(path)},
        "models": models | more,
        "groups": groups,
        "hooks": {"on_startup": {"preload": ["a"]}},
        "routing": {"scheduler": {"use": "fair"}},
    }


def entries(path):
    return [record for record in Recording(path) if isinstance(record, Entry)]


def happened(path, kind, **fields):
    """Give the recorded events and commands of a kind whose fields are these."""
    found = [thing for entry in entries(path) for thing in (entry.step.event, *entry.step.commands)]
    return [
        thing
        for thing in found
        if isinstance(thing, kind) and all(getattr(thing, name) == value for name, value in fields.items())
    ]


async def until_happened(path, kind, **fields):
    return await until(lambda: happened(path, kind, **fields), f"{kind.__name__} {fields} in the journal")


@asynccontextmanager
async def client():
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http:
        yield http


async def a_busy_afternoon(program, path):
    """Swaps, a failed start, a crash, clients that leave, a reload, an unload, a ttl."""
    message = [{"role": "user", "content": PROMPT}]
    async with client() as http:
        wanted = ("a", "sulks", "bee", "a", "broken", "sulks", "b") * 2
        answers = await asyncio.gather(*(ask(http, program, model, messages=message) for model in wanted))
        assert Counter(status for status, _ in answers)[200] >= 6
        async with listening(http, program, "c", messages=message) as busy:
            await busy.hear(1)
            before = len(happened(path, ev.RequestArrived, model="a"))
            queued = asyncio.create_task(ask(http, program, "a"))
            await until(lambda: len(happened(path, ev.RequestArrived, model="a")) > before, "a is waited for")
            program.reload(config(path, extra={"cmd": fake("extra")}))
            await until_happened(path, ev.FleetReloaded)
            await finish(queued)
            await until_happened(path, ev.RequestCancelled)
        assert (await ask(http, program, "extra"))[0] == 200
        program.upstream("extra").kill()
        await until_happened(path, ev.UpstreamExited, model="extra")
        assert (await ask(http, program, "sulks"))[0] == 200
        await until_happened(path, do.Stop, model="sulks", cause=do.StopCause.TTL)
        assert (await ask(http, program, "a"))[0] == 200
        async with http.get(program.url + "/unload") as answer:
            assert answer.status == 200
        await until_happened(path, do.Stop, cause=do.StopCause.UNLOAD)
        assert (await ask(http, program, "b"))[0] == 200


async def test_a_busy_afternoon_replays_byte_for_byte_and_holds_no_secret(stack, tmp_path, capsys):
    path = tmp_path / "deep" / "journal.jsonl"
    program = stack.start(config(path))
    await a_busy_afternoon(program, path)
    program.terminate()
    assert await program.exited() == 0

    recorded = entries(path)
    assert main(["replay", str(path)]) == 0
    assert f"{len(recorded)} steps came out as recorded" in capsys.readouterr().out
    seen = {type(thing) for thing in happened(path, object)}
    # Simulated worlds have these, too, and replay (tests/sim/test_replay.py).
    absent = {ev.StopFailed, ev.SleepRequested, ev.UpstreamAsleep, ev.SleepFailed, ev.WakeFailed, do.Sleep, do.Wake}
    assert {kind for kind, _ in (*EVENTS.values(), *COMMANDS.values())} - seen == absent
    assert recorded[-1].step.event == ev.UpstreamStopped("b", recorded[-1].step.event.generation), "to the very end"

    text = path.read_bytes()
    assert [canary for canary in CANARIES if canary.encode() in text] == []
    assert happened(path, ev.StartFailed, reason="exited with code 3 during start")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_reload_moves_it_switches_it_off_and_the_end_writes_what_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(scribe, "FLUSH_S", 30.0)  # so that what is written later is written by the end
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    models = "models: {m: {cmd: 'x ${PORT}'}}\n"
    texts = [f"{models}journal: {{path: {second}}}", models, f"{models}journal: {{path: {first}}}"]
    options = Options(config=tmp_path / "config.yaml", listen="127.0.0.1:0", state_dir=tmp_path / "state")
    async with running_app(options, lambda: loads(texts.pop())) as app:
        app.loop.post(ev.UnloadRequested())
        await until(first.exists, "the first line is written")
        await app.reload()
        app.loop.post(ev.UnloadRequested())
        await app.reload()
        app.loop.post(ev.UnloadRequested())
    assert [type(entry.step.event) for entry in entries(first)] == [ev.UnloadRequested]
    assert [(entry.number, type(entry.step.event)) for entry in entries(second)] == [
        (3, ev.FleetReloaded),
        (4, ev.UnloadRequested),
        (5, ev.DrainRequested),
    ]
