"""Whole processes: booting, signals, exit codes, what survives."""

import asyncio
import os
import signal

import aiohttp
import psutil
import pytest

from llmswap.fake_upstream.command import main
from llmswap.fake_upstream.ledger import Holder, Ledger
from tests.fake_upstream.harness import CHAT, served, spawned, until

PATH = "/v1/chat/completions"


async def test_llamacpp_and_generic_listen_while_loading_and_refuse_with_503():
    for persona in ("generic", "llamacpp"):
        async with served("--persona", persona, boot=False) as fake:
            status, body = await fake.post(PATH, CHAT)
            assert (status, body["error"]["message"]) == (503, "Loading model")
            assert (await fake.get("/health"))[0] == 503
            await fake.fake.engine.boot()
            assert await fake.get("/health") == (200, {"status": "ok"})
            assert (await fake.post(PATH, CHAT))[0] == 200


async def test_vllm_refuses_connections_until_it_is_ready():
    async with spawned("--persona", "vllm", "--boot", "0.3") as fake:
        lines = "".join(fake.log)
        assert lines.index("startup complete") < lines.index("running on")


async def test_boot_phases_take_their_time_and_a_compile_cache_shortens_one():
    async with served("--time-scale", "1", "--boot", "import=0.05,weights=0,compile=1,profile=0,graphs=0",
                      "--model-profile", "8b", "--compile-cache-hit", boot=False) as fake:  # fmt: skip
        assert fake.fake.options.boot_s["compile"] == pytest.approx(0.12)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await fake.fake.engine.boot()
        assert 0.16 < loop.time() - began < 0.8


async def test_sigterm_ends_it_with_0_after_its_delay():
    async with spawned("--sigterm-delay", "0.3") as fake:
        loop = asyncio.get_running_loop()
        began = loop.time()
        fake.process.terminate()
        assert await fake.exit_code() == 0
        assert loop.time() - began > 0.28


async def test_sigterm_while_loading_ends_it():
    async with spawned("--boot", "60") as fake:
        fake.process.terminate()
        assert await fake.exit_code() == 0


async def test_sigterm_cuts_streams():
    async with spawned("--output-tokens", "exact:5000", "--itl", "20") as fake, aiohttp.ClientSession() as http:
        async with http.post(fake.url + PATH, json={**CHAT, "stream": True}) as response:
            await response.content.readline()
            fake.process.terminate()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
        assert await fake.exit_code() == 0


async def test_a_second_signal_ends_llamacpp_at_once_with_1():
    async with spawned("--persona", "llamacpp", "--sigterm-delay", "60", "--boot", "0") as fake:
        fake.process.terminate()
        await fake.logged("Shutting down")
        fake.process.terminate()
        assert await fake.exit_code() == 1


@pytest.mark.parametrize("flags", [("--ignore-sigterm",), ("--fail", "ignore_sigterm")])
async def test_ignoring_sigterm_leaves_only_sigkill(flags):
    async with spawned(*flags) as fake, aiohttp.ClientSession() as http:
        fake.process.terminate()
        async with http.get(fake.url + "/_fake/fail") as response:  # answered after the signal was taken
            assert (await response.json())[0]["fail"] == "ignore_sigterm"
        await until(lambda: fake.process.returncode is None)
        fake.process.kill()
        assert await fake.exit_code() == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["plain", "stubborn", "setsid"])
async def test_a_grandchild_survives_and_keeps_the_memory(kind, tmp_path):
    path = tmp_path / "gpu.json"
    async with spawned("--model-profile", "4b", "--boot", "0", "--sigterm-delay", "0", "--grandchild", kind,
                       "--gpu-ledger", str(path)) as fake:  # fmt: skip
        await fake.logged("startup complete")
        (child,) = psutil.Process(fake.pid).children()
        try:
            fake.process.terminate()
            assert await fake.exit_code() == 0
            ledger = Ledger(path, 80, 0.0, Holder())
            assert [(entry.pid, entry.gib, entry.until_s) for entry in ledger.entries()] == [(child.pid, 20, None)]
            same_group = os.getpgid(child.pid) == os.getpgid(0)
            assert same_group is (kind != "setsid")
            if kind == "stubborn":
                child.terminate()
                assert child.is_running()
        finally:
            child.kill()
        await until(lambda: ledger.used_gib() == 0)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--fail", "crash_at_start"), "simulated crash in phase weights"),
        (("--fail", "crash_at_start:graphs"), "simulated crash in phase graphs"),
        (("--fail", "start_oom"), "CUDA out of memory"),
        (("--fail", "port_in_use"), "Address already in use"),
        (("--fail", "crash_after:0.1", "--boot", "60"), "crash_after"),
        (("--fail", "crash_after:0.1"), "crash_after"),
    ],
)
async def test_failed_lives_end_with_1_and_a_reason(flags, said):
    async with spawned(*flags, listening=False) as fake:
        assert await fake.exit_code() == 1
        await fake.logged(said)


async def test_never_ready_stays_at_503():
    async with spawned("--fail", "never_ready") as fake, aiohttp.ClientSession() as http:
        async with http.get(fake.url + "/_fake/state") as response:
            assert (await response.json())["boot_phase"] == "never_ready"
        async with http.get(fake.url + "/health") as response:
            assert response.status == 503


async def test_dying_midstream_breaks_the_stream_and_kills_the_process():
    async with spawned("--fail", "die_midstream:3") as fake, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            async with http.post(fake.url + PATH, json={**CHAT, "stream": True}) as response:
                await response.content.read()
        assert await fake.exit_code() == -signal.SIGKILL


@pytest.mark.parametrize("fault", ["sleep_200_die", "wake_then_die"])
async def test_an_engine_may_die_of_sleeping(fault, monkeypatch):
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    flags = ("--persona", "vllm", "--model", "m", "--time-scale", "0", "--fail", fault)
    async with spawned(*flags) as fake, aiohttp.ClientSession(fake.url) as http:
        async with http.post("/sleep") as response:
            assert response.status == 200
        if fault == "wake_then_die":
            async with http.post("/wake_up") as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientConnectionError):
                await http.post(PATH, json=CHAT)
        assert await fake.exit_code() == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--fail", "nope"], "no fault 'nope'"),
        (["--boot", "soon"], "--boot 'soon'"),
        (["--boot", "lunch=1"], "no phase 'lunch'"),
        (["--ttft", "fast"], "ttft_ms"),
        (["--max-num-seqs", "0"], "out of range"),
        (["--output-tokens", "many"], "output_tokens"),
    ],
)
def test_flags_that_make_no_sense_end_with_2_and_a_reason(flags, said, capsys):
    assert main(["--port", "0", *flags]) == 2
    assert said in capsys.readouterr().err


def test_help_names_every_fault_and_flag(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for word in ("--persona", "--gpu-ledger", "--time-scale", "crash_at_start:[phase]", "disconnect_midstream:k"):
        assert word in text
