"""GPUs and host in the whole program: real processes, their ledger, and a driver that may be ill."""

from pathlib import Path

import pytest

from tests.dialogue import ask
from tests.stack import Program, Stack, fake, until
from tests.stub_gpu import HELD_GIB, StubGpu

GIB = 1 << 30
OTHERS_BYTES = GIB // 2 + round(HELD_GIB * GIB)  # the driver's own (nvml_stub), and somebody else's


class Box(StubGpu):
    """A llmswap on one simulated GPU of 10 GiB."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        super().__init__(folder, 10.0)
        self.stack = stack
        stack.environ |= self.environ

    def start(self, **config) -> Program:
        command = fake("a", gpu_ledger=self.ledger, gpu_total=10.0, gpu_ready=8.0, boot=0.05)
        return self.stack.start({"models": {"a": {"cmd": command}}, **config})


@pytest.fixture
def box(stack, tmp_path):
    return Box(stack, tmp_path)


async def lines(http, program: Program, start: str) -> list[str]:
    async with http.get(program.url + "/metrics") as response:
        assert response.status == 200
        return [line for line in (await response.text()).splitlines() if line.startswith(start)]


async def shows(http, program: Program, line: str) -> None:
    async def shown() -> bool:
        return line in await lines(http, program, line.partition(" ")[0])

    await until(shown, f"{line}\n{await lines(http, program, 'llmswap_gpu')}\n{program.log_text()}", 15.0)


async def test_a_models_memory_is_its_own_and_the_rest_is_the_drivers(box, http):
    program = box.start(telemetry={"compat": {"llamaswap": True}})
    await shows(http, program, "llmswap_gpu_poll_success 1.0")
    assert await program.metric("llmswap_model_processes", model="a") == 0
    assert (await ask(http, program, "a", max_tokens=1))[0] == 200
    await shows(http, program, f'llmswap_model_gpu_memory_bytes{{gpu="0",model="a"}} {float(8 * GIB)!r}')
    assert await program.metric("llmswap_gpu_memory_used_bytes", gpu="0") == 8 * GIB + OTHERS_BYTES
    assert await program.metric("llmswap_gpu_memory_unattributed_bytes", gpu="0") == OTHERS_BYTES
    assert await program.metric("llmswap_model_processes", model="a") >= 1
    assert await program.metric("llmswap_model_host_memory_bytes", model="a", kind="anon") > GIB / 1024
    assert await program.metric("llmswap_model_cpu_seconds_total", model="a") > 0
    assert await program.metric("llmswap_host_memory_total_bytes") > GIB
    box.ail("xid")
    await shows(http, program, 'llmswap_gpu_xid_errors_total{gpu="0",xid="79"} 1.0')
    async with http.get(program.url + "/api/hardware") as response:
        (card,) = (await response.json())["accelerators"]
    assert (card["vendor"], card["driver"]["version"]) == ("NVIDIA", "580.65.06")

    async def sampled() -> bool:
        return bool(await lines(http, program, "llamaswap_gpu_memory_used_bytes{"))

    await until(sampled, "the first sample after 5 s", 15.0)
    async with http.get(program.url + "/api/performance") as response:
        answer = await response.json()
    assert answer["enabled"]
    assert answer["gpu_stats"][-1]["mem_total_mb"] == 10.5 * 1024
    assert answer["sys_stats"][-1]["mem_total_mb"] > 0
    assert "llamaswap_cpu_util_percent" in "\n".join(await lines(http, program, "llamaswap_"))


@pytest.mark.parametrize(
    ("fault", "said"), [("hang", "has not answered"), ("lost", "error 15"), ("missing", "error 12")]
)
async def test_an_ill_driver_takes_the_gpus_with_it_until_it_is_well(box, http, fault, said):
    program = box.start()
    await shows(http, program, "llmswap_gpu_poll_success 1.0")
    box.ail(fault)
    await shows(http, program, "llmswap_gpu_poll_success 0.0")
    assert await lines(http, program, "llmswap_gpu_memory_used_bytes") == []
    assert await program.metric("llmswap_host_memory_total_bytes") > GIB
    if fault != "missing":
        assert said in program.log_text()
    box.ail("")
    await shows(http, program, "llmswap_gpu_poll_success 1.0")
    assert await lines(http, program, "llmswap_gpu_memory_used_bytes{")


async def test_pids_of_another_world_make_an_estimate(box, http):
    box.ail("hidden")
    program = box.start()
    await shows(http, program, "llmswap_gpu_poll_success 1.0")
    assert (await ask(http, program, "a", max_tokens=1))[0] == 200
    await shows(http, program, 'llmswap_model_gpu_memory_estimated{model="a"} 1.0')
    assert await program.metric("llmswap_model_gpu_memory_bytes", model="a", gpu="0") == 8 * GIB


async def test_a_reload_switches_it_off_and_on(box, http):
    program = box.start()
    await shows(http, program, "llmswap_gpu_poll_success 1.0")
    models = {"models": {"a": {"cmd": fake("a")}}}
    program.reload({**models, "performance": {"disabled": True}})

    async def gone() -> bool:
        return not await lines(http, program, "llmswap_gpu_poll")

    await until(gone, "no look at the GPUs")
    async with http.get(program.url + "/api/performance") as response:
        assert response.status == 503
    program.reload(models)
    await shows(http, program, "llmswap_gpu_poll_success 1.0")


async def test_without_a_driver_one_line_says_why(stack, http):
    program = stack.start({"models": {"a": {"cmd": fake("a")}}})
    await shows(http, program, "llmswap_gpu_poll_success 0.0")
    assert program.log_text().count("no GPU metrics: ") == 1
    assert [
        line for line in await lines(http, program, "llmswap_gpu_") if "_poll_" not in line and "_phase_" not in line
    ] == []
