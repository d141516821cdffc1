"""The description of this machine."""

import json

import psutil

from llmswap.runtime.host import snapshot


def test_snapshot_has_llama_swaps_form_and_true_figures():
    here = snapshot()
    assert set(here) == {
        *("schema_version", "captured_at", "capture", "architecture", "operating_system", "environment"),
        *("cpu", "memory", "accelerators"),
    }
    assert here["schema_version"] == 1
    assert here["capture"]["detector"]["name"] == "llmswap"
    assert here["operating_system"]["family"] == "linux"
    assert here["memory"]["capacity_bytes"] == psutil.virtual_memory().total
    assert here["cpu"]["logical_thread_count"] == psutil.cpu_count()
    json.dumps(here)


def test_what_is_unknown_is_null(monkeypatch):
    monkeypatch.setattr("llmswap.runtime.host.platform.machine", lambda: "vax")
    monkeypatch.setattr("llmswap.runtime.host.platform.freedesktop_os_release", dict)
    here = snapshot()
    assert here["architecture"] == {"name": None, "raw_name": "vax"}
    assert here["operating_system"]["name"] is None
    assert here["accelerators"] is None
