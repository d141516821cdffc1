"""How busy this host is."""

import time
from types import SimpleNamespace

import psutil
import pytest

from llmswap.runtime.load import LoadMeter


def test_figures_of_this_host_are_in_range() -> None:
    load = LoadMeter().look(17.5)
    assert load.at == 17.5
    assert len(load.cpu_percent) == psutil.cpu_count()
    assert load.memory_total_bytes == psutil.virtual_memory().total
    assert 0 < load.memory_free_bytes <= load.memory_total_bytes
    assert load.swap_used_bytes <= load.swap_total_bytes
    assert len(load.averages) == 3
    assert "lo" not in {name for name, _, _ in load.network}


def test_a_cpus_share_is_what_it_did_since_the_last_look(monkeypatch) -> None:
    class Times(SimpleNamespace):
        def __iter__(self):
            return iter(vars(self).values())

    looks = iter(
        [
            [Times(user=10.0, idle=100.0, iowait=1.0, guest=5.0), Times(user=0.0, idle=0.0, iowait=0.0, guest=0.0)],
            [Times(user=13.0, idle=106.0, iowait=2.0, guest=8.0), Times(user=0.0, idle=0.0, iowait=0.0, guest=0.0)],
            [Times(user=14.0, idle=106.0, iowait=2.0, guest=8.0), Times(user=0.0, idle=4.0, iowait=0.0, guest=0.0)],
        ]
    )
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(looks))
    meter = LoadMeter()
    assert meter.look(time.time()).cpu_percent == pytest.approx((30.0, 0.0))
    assert meter.look(time.time()).cpu_percent == (100.0, 0.0)
