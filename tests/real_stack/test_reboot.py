"""The engine dies without a word, and comes back: nothing is lost, nothing is left over, everything goes on."""

import json
import time
import urllib.request

import psutil
import pytest

from tests.real_stack.clone import PASSWORD, Stack
from tests.stack import until_now

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

JOURNAL = "/var/lib/llmswap/journal.jsonl"


def ask(stack: Stack, model: str) -> None:
    """Send a request and read its answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    request = urllib.request.Request(stack.llmswap + "/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=90) as answer:
        assert answer.status == 200


def engines(stack: Stack) -> list[psutil.Process]:
    """Find the engines that llmswap has started, by this machine's pids."""
    program = psutil.Process(stack.container("llmswap")["State"]["Pid"])
    return [process for process in program.children(recursive=True) if "fake-upstream" in process.cmdline()]


def exemplar(stack: Stack) -> str:
    """Give the trace id of some request."""
    now_s = time.time()
    query = {"query": "llmswap_request_duration_seconds_bucket", "start": str(now_s - 3600), "end": str(now_s)}
    rows = stack.prometheus("query_exemplars", **query)
    return next((found["labels"]["trace_id"] for row in rows for found in row["exemplars"]), "")


def test_a_killed_engine_that_comes_back_finds_everything_and_leaves_no_orphans(stack: Stack):
    for model in ("chat", "embed"):
        ask(stack, model)
    trace = until_now(lambda: exemplar(stack), "a request's trace is known to Prometheus", 60)
    spans = until_now(lambda: stack.trace(trace), "and to Tempo", 30)
    served = until_now(lambda: stack.number("sum(llmswap_requests_total)"), "requests are counted", 30)
    journal = stack.compose("exec", "-T", "llmswap", "cat", JOURNAL)
    boards = stack.grafana("/api/search")
    old = engines(stack)
    assert len(old) >= 2
    at_s = time.time()

    stack.engine.kill()
    stack.engine.up()

    until_now(
        lambda: stack.container("grafana")["State"].get("Health", {}).get("Status") == "healthy",
        "Grafana is back",
        120,
    )
    until_now(lambda: stack.container("llmswap")["State"]["Health"]["Status"] == "healthy", "llmswap is back", 120)
    assert [process for process in old if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert stack.compose("exec", "-T", "llmswap", "cat", JOURNAL).startswith(journal)
    assert (stack.root / PASSWORD).read_text() == stack.compose(
        "exec", "-T", "grafana", "cat", "/var/lib/grafana/admin_password"
    )
    assert stack.grafana("/api/search") == boards
    assert stack.trace(trace) == spans
    (row,) = stack.prometheus("query", query="sum(llmswap_requests_total)", time=str(at_s))["result"]
    assert float(row["value"][1]) == served
    until_now(
        lambda: stack.targets().get("llmswap") == "up" and stack.number("llmswap_config_models"), "scrapes go on", 60
    )
    ask(stack, "chat")
    until_now(lambda: stack.number('llmswap_model_state{model="chat", state="ready"}') == 1, "the new life is seen", 60)
