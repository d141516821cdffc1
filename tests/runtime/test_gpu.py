"""The thread that asks the driver: shared, bounded, and never in the way of the event loop."""

import asyncio
import threading
import time

import pytest

from llmswap.runtime.gpu import Gpu, GpuWatch, Sample, Vitals
from tests.runtime.rig import until

GOOD = Sample((Gpu(0, "GPU-0", used_bytes=5, by_pid={1: 3}),))


class Driver:
    """A reader that can be held up: while `gate` is cleared, its calls hang."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.answer: Sample | BaseException = GOOD

    def __call__(self) -> Sample:
        self.calls += 1
        assert self.gate.wait(20)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def driver():
    driver = Driver()
    yield driver
    driver.gate.set()


def gpu_threads() -> set[threading.Thread]:
    """Those that run; one of an earlier test may be just about to end."""
    return {thread for thread in threading.enumerate() if thread.name == "gpu"}


async def test_whoever_asks_meanwhile_shares_the_call(driver) -> None:
    watch = GpuWatch(driver)
    driver.gate.clear()
    asking = [asyncio.create_task(watch.ask()) for _ in range(50)]
    await until(lambda: driver.calls, "the call")
    driver.gate.set()
    assert await asyncio.gather(*asking) == [GOOD] * 50
    assert driver.calls == 1
    assert await watch.ask() == GOOD
    assert driver.calls == 2
    watch.close()


async def test_who_wants_more_than_the_call_under_way_gives_gets_a_call_of_its_own(driver) -> None:
    full = Sample((Gpu(0, "GPU-0", vitals=Vitals()),))
    fully = []

    def read_fully() -> Sample:
        fully.append(driver.gate.wait(20))
        return full

    watch = GpuWatch(driver, read_fully=read_fully)
    driver.gate.clear()
    little = asyncio.create_task(watch.ask())
    await until(lambda: driver.calls, "the call")
    much = asyncio.create_task(watch.ask(full=True))
    driver.gate.set()
    assert (await little, await much) == (GOOD, full)
    driver.gate.clear()
    much = asyncio.create_task(watch.ask(full=True))
    await until(lambda: watch._under_way, "the call")
    little = asyncio.create_task(watch.ask())  # who wants less shares it
    driver.gate.set()
    assert (await little, await much) == (full, full)
    assert (driver.calls, len(fully)) == (1, 2)
    watch.close()


async def test_who_wants_what_is_there_now_does_not_take_the_answer_to_an_earlier_question(driver) -> None:
    """A call that began before a model took its memory knows nothing of it."""
    watch = GpuWatch(driver)
    driver.gate.clear()
    early = asyncio.create_task(watch.ask())
    await until(lambda: driver.calls, "the call")
    asking = [asyncio.create_task(watch.ask(fresh=True)) for _ in range(20)]
    await asyncio.sleep(0)
    driver.gate.set()
    assert await asyncio.gather(early, *asking) == [GOOD] * 21
    assert driver.calls == 2  # theirs is one call, too
    watch.close()


async def test_a_sample_says_what_it_took(driver) -> None:
    watch = GpuWatch(driver, limit_s=0.05)
    assert 0 < (await watch.ask()).took_s < 0.05
    driver.gate.clear()
    assert 0.05 <= (await watch.ask()).took_s < 1.5
    driver.gate.set()
    watch.close()


async def test_a_hung_call_is_given_up_in_time_and_not_repeated_until_it_returns(driver) -> None:
    watch = GpuWatch(driver, limit_s=0.1)
    earlier = gpu_threads()
    driver.gate.clear()
    began_s = time.monotonic()
    first = await watch.ask()
    assert 0.1 <= time.monotonic() - began_s < 1.5
    assert (first.gpus, first.driver) == ((), True)
    assert "has not answered" in first.problem
    began_s = time.monotonic()
    for _ in range(20):
        assert "has not answered" in (await watch.ask()).problem
    assert time.monotonic() - began_s < 1.0  # at once: nobody waits for it a second time, which would take 2 s
    assert driver.calls == 1
    assert len(gpu_threads() - earlier) == 1
    driver.gate.set()
    await until(lambda: watch._under_way is None, "the end of the hung call")
    assert await watch.ask() == GOOD
    watch.close()


async def test_the_loop_ticks_while_the_driver_hangs(driver) -> None:
    watch = GpuWatch(driver, limit_s=0.3)
    driver.gate.clear()
    asking = asyncio.create_task(watch.ask())
    gaps, last_s = [], time.monotonic()
    while not asking.done():
        await asyncio.sleep(0.001)
        now_s = time.monotonic()
        gaps.append(now_s - last_s)
        last_s = now_s
    assert "has not answered" in asking.result().problem
    assert len(gaps) > 50
    assert sorted(gaps)[len(gaps) * 9 // 10] < 0.05
    driver.gate.set()
    watch.close()


async def test_whatever_a_binding_raises_becomes_a_reason(driver) -> None:
    watch = GpuWatch(driver)
    for error in (OSError("no such symbol"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad name"), KeyError("x")):
        driver.answer = error
        sample = await watch.ask()
        assert sample.gpus == ()
        assert type(error).__name__ in sample.problem
    driver.answer = GOOD
    assert await watch.ask() == GOOD
    watch.close()


async def test_an_asker_that_is_cancelled_takes_nothing_from_the_others(driver) -> None:
    watch = GpuWatch(driver)
    driver.gate.clear()
    leaving, staying = asyncio.create_task(watch.ask()), asyncio.create_task(watch.ask())
    await until(lambda: driver.calls, "the call")
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    driver.gate.set()
    assert await staying == GOOD
    watch.close()


async def test_its_thread_ends_with_it(driver) -> None:
    earlier = gpu_threads()
    watch = GpuWatch(driver)
    await watch.ask()
    assert len(gpu_threads() - earlier) == 1
    watch.close()
    await until(lambda: not gpu_threads() - earlier, "the end of the thread")


async def test_one_ask_costs_the_loop_little(driver) -> None:
    watch = GpuWatch(driver)
    await watch.ask()
    began_s = time.thread_time()
    for _ in range(500):
        await watch.ask()
    each_s = (time.thread_time() - began_s) / 500
    assert each_s < 0.001, f"{each_s * 1e6:.0f} us"  # some 60 us on an idle machine
    watch.close()


def test_unclaimed_is_what_nobody_accounts_for() -> None:
    assert Gpu(0, used_bytes=10, by_pid={1: 3, 2: 4}).unclaimed_bytes == 3
    assert Gpu(0, used_bytes=10, by_pid={1: 3, 2: None}).unclaimed_bytes is None
    assert Gpu(0, used_bytes=None, by_pid={}).unclaimed_bytes is None
    assert Gpu(0, used_bytes=10).unclaimed_bytes is None
