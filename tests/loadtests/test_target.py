"""What a target turns out to be, and how it is made ready."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtests import scenario, target
from loadtests.target import Kind, Lanes, Target, TargetError

LLMSWAP = 'llmswap_build_info{version="1"} 1\nllmswap_requests_in_flight{model="m"} 0\n'
RUNNING = json.dumps({"running": [{"model": "chat", "state": "starting", "proxy": "http://127.0.0.1:1"}]})
MODELS = json.dumps({"data": [{"id": "chat"}, {"id": "sleeper"}]})


@contextmanager
def serving(**pages):
    """Serve pages by path, 404 for all others; gives a Target and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, json.loads(body or b"null"), self.headers.get("Authorization")))
            page = pages.get(self.path.strip("/").replace("/", "_"))
            status, text = page if isinstance(page, tuple) else (404 if page is None else 200, page or "no")
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Target(f"http://127.0.0.1:{server.server_port}", "secret"), asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("pages", "kind"),
    [
        ({"metrics": LLMSWAP, "running": RUNNING}, Kind.LLMSWAP),
        ({"metrics": "process_cpu 1\n", "running": RUNNING}, Kind.LLAMA_SWAP),
        ({"running": "<html>"}, Kind.OPENAI),
        ({}, Kind.OPENAI),
    ],
)
def test_a_target_is_known_by_what_it_shows(pages, kind):
    with serving(**pages) as (box, asked):
        assert box.kind() is kind
    assert {key for *_, key in asked} == {"Bearer secret"}


def test_a_target_that_is_not_there_is_told_so():
    with pytest.raises(TargetError, match="cannot be reached"):
        Target("http://127.0.0.1:1").kind()


def test_models_that_are_to_sleep_are_brought_up_and_put_to_sleep(monkeypatch):
    monkeypatch.setattr(target, "FRESH_S", 0.0)
    pages = {"v1_models": MODELS, "v1_chat_completions": "{}", "api_models_sleep_sleeper": "{}"}
    with serving(**pages) as (box, asked):
        box.prepare(scenario.load("burst"))
    assert [(method, path) for method, path, *_ in asked] == [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/api/models/sleep/sleeper"),
    ]
    assert asked[1][2]["model"] == "sleeper"


def test_what_a_target_lacks_or_refuses_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setattr(target, "FRESH_S", 0.0)
    with (
        serving(v1_models=MODELS) as (box, _),
        pytest.raises(TargetError, match=r"no model left, right.*--models left=NAME"),
    ):
        box.prepare(scenario.load("pingpong"))
    failing = {"v1_models": MODELS, "v1_chat_completions": (502, "it crashed")}
    with serving(**failing) as (box, _), pytest.raises(TargetError, match="chat does not come up: 502 it crashed"):
        box.prepare(scenario.load("hit"))
    sleepless = {"v1_models": MODELS, "v1_chat_completions": "{}"}
    with serving(**sleepless) as (box, _), pytest.raises(TargetError, match="cannot be put to sleep: 404"):
        box.prepare(scenario.load("burst"))


def test_a_target_that_lists_nothing_is_taken_at_its_word(monkeypatch):
    monkeypatch.setattr(target, "FRESH_S", 0.0)
    with serving(v1_chat_completions="{}") as (box, asked):
        box.prepare(scenario.load("unknown"))
    assert [body["model"] for _, path, body, _ in asked if path != "/v1/models"] == ["chat", "nobody-at-all"]


def test_metrics_are_read_once_nothing_is_in_flight(monkeypatch):
    monkeypatch.setattr(target, "QUIET_LIMIT_S", 0.0)
    with serving(metrics=LLMSWAP.replace("} 0", "} 3")) as (box, _):
        slept = []
        assert box.quiet(slept.append).total("llmswap_requests_in_flight") == 3
    assert len(slept) == 1


def test_lanes_begin_where_a_model_is_first_seen_and_change_with_its_state():
    lanes = Lanes(0.1)
    for at_s, states in (
        (0.0, {}),
        (1.0, {"m": "starting"}),
        (2.0, {"m": "starting"}),
        (3.0, {"m": "ready"}),
        (4.0, {}),
    ):
        lanes.see(at_s, {model: {"state": state} for model, state in states.items()})
    assert lanes.spans == {"m": [(0.0, ""), (1.0, "starting"), (3.0, "ready"), (4.0, "")]}
    assert (lanes.count("starting"), lanes.blind) == (1, "")
