"""What the driver reports by itself, heard in a thread that lets go of a driver that is not well."""

import threading

import pytest

from llmswap.runtime import xids
from llmswap.runtime.machine import Xid
from llmswap.runtime.nvml import RETRY_S, NvmlReader
from llmswap.runtime.xids import HARDWARE, XidWatch
from tests.runtime.fake_nvml import GPU_IS_LOST, NOT_SUPPORTED, Card, FakeNvml
from tests.stack import until_now


@pytest.fixture
def listen(monkeypatch):
    monkeypatch.setattr(xids, "WAIT_MS", 10)
    watches = []

    def start(nvml: FakeNvml, well=lambda: True) -> XidWatch:
        watch = XidWatch(lambda: nvml, well, lambda: 1700.5)
        watches.append(watch)
        watch.start()
        return watch

    yield start
    for watch in watches:
        watch.close()
        watch._thread.join(10)
        assert not watch._thread.is_alive()


def heard(watch: XidWatch) -> set[Xid]:
    return {xid for xid in watch.seen() or () if xid.count}


def test_an_error_is_counted_and_the_hardwares_codes_stand_at_0(listen, caplog) -> None:
    nvml = FakeNvml(Card("GPU-a"), Card("GPU-b"))
    watch = listen(nvml)
    assert until_now(watch.seen, "somebody to listen") == tuple(
        Xid(gpu, code) for gpu in ("0", "1") for code in sorted(HARDWARE)
    )
    for event in ((1, 79), (1, 79), (0, 31)):
        nvml.xids.put(event)
    until_now(lambda: heard(watch) == {Xid("1", 79, 2, 1700.5), Xid("0", 31, 1, 1700.5)}, "three errors")
    waits = nvml.called.count("nvmlEventSetWait_v2")
    until_now(lambda: nvml.called.count("nvmlEventSetWait_v2") > waits + 3, "waits in which nothing happens")
    assert nvml.called.count("nvmlInit") == 1
    assert [record.message for record in caplog.records if "XID" in record.message] == [
        "GPU 1 reported XID 79; further ones are only counted",
        "GPU 0 reported XID 31; further ones are only counted",
    ]


def test_a_driver_that_does_not_tell_is_asked_no_more(listen) -> None:
    for nvml in (FakeNvml(Card(fails={"nvmlDeviceRegisterEvents": NOT_SUPPORTED})), FakeNvml()):
        watch = listen(nvml)
        watch._thread.join(10)
        assert watch.seen() is None
        assert (nvml.opened, nvml.event_sets) == (0, 0)
        assert nvml.called.count("nvmlInit") == 1


def test_a_driver_that_is_not_well_is_let_go_and_taken_up_again(listen) -> None:
    nvml, well = FakeNvml(Card()), threading.Event()
    watch = listen(nvml, well.is_set)
    assert nvml.opened == 0
    for _ in range(2):
        well.set()
        until_now(lambda: nvml.event_sets == 1, "somebody to listen")
        assert nvml.opened == 1
        nvml.xids.put((0, 48))
        until_now(nvml.xids.empty, "it to be heard")
        well.clear()
        until_now(lambda: nvml.opened == 0, "it to let go")
        assert nvml.event_sets == 0
    assert heard(watch) == {Xid("0", 48, 2, 1700.5)}


def test_a_lost_gpu_can_be_opened_anew_while_somebody_listens(listen) -> None:
    nvml, now_s = FakeNvml(Card()), [100.0]
    reader = NvmlReader(lambda: nvml, lambda: now_s[0])
    assert reader.fully().problem == ""
    listen(nvml, lambda: reader.well)
    until_now(lambda: nvml.opened == 2, "somebody to listen")
    nvml.fails["nvmlDeviceGetCount"] = GPU_IS_LOST
    reader()
    until_now(lambda: nvml.opened == 1, "it to let go")
    nvml.fails.clear()
    now_s[0] += RETRY_S
    opened = []
    nvml.before = lambda name: opened.append(nvml.opened) if name == "nvmlInit" else None
    assert len(reader().gpus) == 1
    assert opened[0] == 0  # really anew: nobody held it open
    until_now(lambda: nvml.opened == 2, "somebody to listen again")


def test_events_that_fail_are_tried_again_and_leave_nothing_open(listen) -> None:
    nvml = FakeNvml(Card())
    nvml.fails["nvmlEventSetWait_v2"] = GPU_IS_LOST
    watch = listen(nvml)
    until_now(lambda: nvml.called.count("nvmlInit") >= 3, "a third try")
    nvml.fails.clear()
    nvml.xids.put((0, 62))
    until_now(lambda: heard(watch) == {Xid("0", 62, 1, 1700.5)}, "the error")
