"""The table that `llmswap status` draws."""

from typing import Any

from llmswap.proxy.status_client import status_table


def entry(**said: Any) -> dict[str, Any]:
    return {"model": "m", "state": "ready", "since_s": 200.0, "in_flight": 1, "waiting": 0} | said


def test_a_row_says_since_when_and_why() -> None:
    never = entry(model="other", state="stopped", since_s=None, in_flight=0)
    failed = entry(state="failed", since_s=8.0, failure="exited with code 1", retry_in_s=3.2)
    table = status_table({"draining": True, "models": [entry(ttl_left_s=40.0), never, failed]}).splitlines()
    assert [line.split() for line in table[:3]] == [
        ["MODEL", "STATE", "FOR", "IN", "FLIGHT", "WAITING", "GPU", "MEMORY", "NOTE"],
        ["m", "ready", "3m", "20s", "1", "0", "-", "unloads", "in", "40", "s"],
        ["other", "stopped", "-", "0", "0", "-"],
    ]
    assert table[3].endswith("exited with code 1 (next try in 3 s)")
    assert table[4].startswith("draining")


def test_a_row_says_what_comes_next_and_what_became_of_the_last_sleep() -> None:
    sleepy = entry(sleep_left_s=30.0, ttl_left_s=90.0)
    seen = {"ready": {"gpu_bytes": 40 << 30}, "asleep": {"gpu_bytes": 5 << 28}}
    asleep = entry(state="asleep", ttl_left_s=60.0, memory=seen)
    awake = entry(sleep_failure="POST /wake_up answered 500", ttl_left_s=90.0)
    gone = entry(state="stopped", failure="asked twice", sleep_failure="asked twice")
    table = status_table({"models": [sleepy, asleep, awake, gone]}).splitlines()
    assert table[1].endswith("  sleeps in 30 s")
    assert table[2].split()[1] == "asleep"
    assert table[2].endswith("  1.2 GiB     unloads in 60 s")
    assert table[3].endswith("  unloads in 90 s; could not sleep or wake: POST /wake_up answered 500")
    assert table[4].endswith("  asked twice")
