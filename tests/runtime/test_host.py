"""The description of this machine."""

import json

import psutil

from llmswap.runtime.host import free_bytes, resident_bytes, snapshot


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


def test_host_memory_leaves_mapped_files_out(tmp_path) -> None:
    for pid, text in {7: "RssAnon:\t 100 kB\nRssFile:\t 900 kB\nRssShmem:\t 20 kB\n", 8: "RssAnon:\t 1 kB\n"}.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nVmRSS:\t 1020 kB\n{text}")
    assert resident_bytes([7, 8, 9], tmp_path) == 121 * 1024
    assert resident_bytes([9], tmp_path) is None


def test_free_memory_is_what_the_tightest_limit_leaves(tmp_path) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/box/llmswap\n")
    (cgroups / "box" / "llmswap").mkdir(parents=True)
    (cgroups / "box" / "llmswap" / "memory.max").write_text("max\n")
    assert free_bytes(cgroups, proc) > 1000
    for name, text in {"max": "1000\n", "current": "700\n", "stat": "anon 1\ninactive_file 500\n"}.items():
        (cgroups / "box" / f"memory.{name}").write_text(text)
    assert free_bytes(cgroups, proc) == 800
    (cgroups / "box" / "memory.current").write_text("1700\n")
    assert free_bytes(cgroups, proc) == 0
