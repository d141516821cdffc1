"""Fault rows of requests: bodies that are late, broken, ambiguous or hostile, and clients that leave."""

import asyncio
import json
import random
import time
import zlib
from typing import Any

import aiohttp
import orjson
import pytest

from llmswap.proxy import server
from llmswap.proxy.bodies import BodyLimits
from tests.proxy.rig import Rig, model, rig_of
from tests.raw import RawClient, request
from tests.stack import Stack, fake, until

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json\r\n"
HASTY = BodyLimits(idle_s=0.15, total_s=0.5)
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def short_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less than a second for the rest of a refused body: it never comes."""
    monkeypatch.setattr(server, "LINGERING_S", 0.05)


async def status_of(rig: Rig, body: bytes, headers: str = JSON, path: str = CHAT) -> int:
    reply = await rig.raw(request("POST", path, body, headers=headers))
    if reply.status >= 400:
        assert orjson.loads(reply.body)["error"]["message"]
    return reply.status


async def test_F057_a_queued_client_that_leaves_causes_no_load(stack: Stack, http: aiohttp.ClientSession) -> None:
    endless = {"time_scale": 0.01, "itl": 1000, "output_tokens": "exact:5000"}
    program = stack.start({"models": {name: {"cmd": fake(name, **endless)} for name in ("a", "b")}})
    stream = {"model": "a", "messages": MESSAGES, "stream": True, "max_tokens": 5000}
    async with http.post(program.url + CHAT, json=stream) as busy:
        await busy.content.readany()
        body = orjson.dumps({"model": "b", "messages": MESSAGES})
        async with await RawClient.connect(program.host, program.port) as client:
            await client.send(request("POST", CHAT, body, headers=JSON))
            await until(lambda: program.metric("llmswap_queue_depth", model="b"), "b waits for a to finish")
            client.reset()
        await until(lambda: _is_zero(program.metric("llmswap_queue_depth", model="b")), "its place is free")
    await program.until_state("a", "ready")
    async with http.post(program.url + CHAT, json={**stream, "stream": False, "max_tokens": 1}) as answer:
        assert answer.status == 200
    assert await program.running() == {"a": "ready"}
    assert await program.metric("llmswap_swaps_total", to_model="b") == 0


async def _is_zero(number: Any) -> bool:
    return await number == 0


async def test_F071_an_upstreams_error_after_the_banner_is_an_event_and_a_proper_end(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    cmd = fake("m", time_scale=0.01, fail=["http_503"])
    models = {"m": {"cmd": cmd, "concurrencyLimit": 1}}
    config = {"sendLoadingState": True, "models": models, "routing": {"scheduler": {"use": "fifo"}}}
    program = stack.start(config)
    asked = {"model": "m", "messages": MESSAGES, "stream": True}
    async with http.post(program.url + CHAT, json=asked) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        first = await answer.content.readuntil(b"\n\n")
        async with http.post(program.url + CHAT, json=asked) as refused:  # admission comes before any banner
            assert (refused.status, refused.content_type) == (429, "application/json")
        events = (first + await answer.read()).decode().split("\n\n")
    assert all(event.startswith("data: ") for event in events[:-1])
    assert "503" in orjson.loads(events[-3][6:])["error"]["message"]
    assert events[-2:] == ["data: [DONE]", ""]


async def test_F073_a_bug_of_ours_answers_500_and_gives_the_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig_of(model("m"), limit=1) as rig:

        async def broken(*_: Any, **__: Any) -> None:
            raise LookupError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(rig.context.upstream, "forward", broken)
            assert [await status_of(rig, b'{"model":"m"}') for _ in range(3)] == [500, 500, 500]
        assert await status_of(rig, b'{"model":"m"}') == 200


async def test_F092_a_slow_body_is_cut_off_by_idle_and_by_total_time() -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 1000\r\n\r\n".encode()
    async with rig_of(model("m"), limits=HASTY) as rig:
        async with await rig.connect() as client:
            await client.send(head + b'{"model"')
            reply = await client.read_to_end(5)
            assert (reply.status, reply.closed) == (408, "eof")
        async with await rig.connect() as client:
            await client.send(head)
            ended = asyncio.create_task(client.read_to_end(5))
            began_s = time.monotonic()
            while not ended.done() and time.monotonic() - began_s < 5:
                await client.send(b" ")
                await asyncio.wait({ended}, timeout=0.03)  # slower than whole, never idle
            assert (await ended).status == 408
        assert not rig.starts


async def test_F095_a_large_promise_and_no_body_costs_nothing_and_is_cut_off() -> None:
    for declared, status in ((500_000_000, 413), (20_000_000, 408)):
        async with rig_of(model("m"), limits=HASTY) as rig, await rig.connect() as client:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {declared}\r\n\r\n"
            await client.send(head.encode())
            reply = await client.read_to_end(5)
            assert (reply.status, reply.closed) == (status, "eof")


async def test_F096_gzip_bombs_are_refused_unopened() -> None:
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(2**20)) for _ in range(100)) + squeeze.flush()
    assert len(bomb) < 200_000
    gaps = [0.0]

    async def beat() -> None:
        last_s = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now_s = time.perf_counter()
            gaps.append(now_s - last_s)
            last_s = now_s

    async with rig_of(model("m")) as rig:
        heart = asyncio.create_task(beat())
        headers = JSON + "Content-Encoding: gzip\r\n"
        statuses = await asyncio.gather(*(status_of(rig, bomb, headers) for _ in range(5)))
        heart.cancel()
        assert statuses == [415] * 5
        assert not rig.starts
        assert max(gaps) < 2.0  # inflating them took 5.6 s; the bench has the real figure


BROKEN = [
    b'{"model":"m"',
    b'{"model":"m"} x',
    b'{"model":"m"}{"model":"m"}',
    b"\xef\xbb\xbf" + b'{"model":"m"}',
    b'{"model":"m","temperature":NaN}',
    b'{"model":"m","temperature":-Infinity}',
    b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"model":"m","x":' + b'{"a":' * 100_000,
    b'{"model":"m","x":' + b"[" * 300 + b"]" * 300 + b"}",
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_F097_broken_json_is_400(body: bytes) -> None:
    async with rig_of(model("m")) as rig:
        assert await status_of(rig, body) == 400
        assert not rig.starts


AMBIGUOUS = [
    b'{"model":"m","model":"n"}',
    b'{"model":"m","x":{"model":"m"},"model":"m"}',
    b'{"model":"m","\\u006dodel":"n"}',
    b'{"\\u006Dode\\u006C":"m","model":"n"}',
    b'{"model":1}',
    b'{"model":["m"]}',
    b'{"model":null}',
    b'{"model":{}}',
    b'{"model":true}',
]


@pytest.mark.parametrize("body", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
async def test_F098_an_ambiguous_model_is_400(body: bytes) -> None:
    async with rig_of(model("m"), model("n")) as rig:
        assert await status_of(rig, body) == 400
        assert not rig.starts


async def test_F098_what_is_forwarded_names_the_model_that_was_routed() -> None:
    async with rig_of(model("m", use_model_name="real")) as rig:
        assert await status_of(rig, b'{"\\u006dodel":"m","tools":[{"model":"x"}]}') == 200
        assert rig.upstream.last.json == {"model": "real", "tools": [{"model": "x"}]}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ("", b'{"model":"m"}', 200),
        ("Content-Type: text/plain\r\n", b' {"model":"m"}', 200),
        ("Content-Type: application/x-www-form-urlencoded\r\n", b'{"model":"m"}', 200),
        ("Content-Type: application/jso\r\n", b'{"model":"m"', 400),
        ("Content-Type: text/plain\r\n", b"hello", 415),
        ("Content-Type: ;\r\n", b"\x00\xff", 415),
        ("Content-Type: application/json; charset=utf-16\r\n", '{"model":"m"}'.encode("utf-16"), 400),
        ("Content-Type: multipart/form-data\r\n", b'{"model":"m"}', 400),
        ("Content-Type: multipart/form-data; boundary=a\r\n", b"--a--", 404),
        ("Content-Type: " + "x" * 4000 + "\r\n", b"hello", 415),
    ],
)
async def test_F099_the_wrong_content_type_is_read_or_refused_never_500(headers: str, body: bytes, status: int) -> None:
    async with rig_of(model("m")) as rig:
        assert await status_of(rig, body, headers) == status


@pytest.mark.parametrize(
    "name", ["org/name", "a%2Fb", "a%252Fb", "\u00e9", "e\u0301", "\U0001f600", "n" * 10_000, "a\r\nb", "'\"<>&", " "]
)
async def test_F108_odd_model_names_match_exactly_or_are_404(name: str) -> None:
    async with rig_of(model(name)) as rig:
        assert await status_of(rig, orjson.dumps({"model": name})) == 200
        for other in (name + "x", name.encode().hex(), name.replace("/", "%2F") + " "):
            assert await status_of(rig, orjson.dumps({"model": other})) == 404
        assert len(rig.starts) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/upstream/m/%2e%2e/x", 400),
        ("/upstream/m/../x", 400),
        ("/upstream/m/x/.%2E", 400),
        ("/upstream/m/..%2f..%2fetc/passwd", 400),
        ("/upstream/m/a%00b", 400),
        ("/upstream/m/a\\b", 400),
        ("/upstream/m/a%5Cb", 400),
        ("/upstream/m//a//b;c=d/%7e", 200),
        ("/upstream/m/%2Fa", 200),
    ],
)
async def test_F109_a_path_goes_on_untouched_or_not_at_all(path: str, status: int) -> None:
    async with rig_of(model("m")) as rig:
        assert (await rig.raw(request("GET", path))).status == status
        expected = [path.removeprefix("/upstream/m")] if status == 200 else []
        assert [seen.target for seen in rig.upstream.seen] == expected


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/upstream/m/x", headers="X-A: 1\rX-Evil: 1\r\n"),
        request("GET", "/upstream/m/x", headers="X-A: 1\nX-Evil: 1\r\n"),
        request("GET", "/upstream/m/x", headers="X-A: \x00\r\n"),
        request("GET", "/upstream/m/x\rX-Evil:1"),
        request("GET", "/upstream/m/x\x0b"),
        request("GET", "/upstream/m/x?a=\x01"),
        request("GET", "/upstream/m/\u20ac"),
    ],
    ids=range(7),
)
async def test_F110_control_characters_in_a_head_are_400(data: bytes) -> None:
    async with rig_of(model("m")) as rig:
        reply = await rig.raw(data)
        assert (reply.status, rig.upstream.seen) == (400, [])


async def test_F110_encoded_line_breaks_reach_no_header() -> None:
    async with rig_of(model("m")) as rig:
        for data in (
            request("GET", "/upstream/m?a=%0d%0aX-Evil:1"),
            request("GET", "/upstream/m%0d%0aX-Evil:1/"),
            request("GET", "/props?model=m%0d%0aX-Evil:1"),
            request("POST", CHAT, b'{"model":"m\\r\\nX-Evil: 1"}', headers=JSON),
            request("GET", "/upstream/m/%0d%0aX-Evil:1"),
            request("GET", "/upstream/m/x?b=%0d%0aX-Evil:1"),
        ):
            reply = await rig.raw(data)
            assert reply.status in {200, 301, 404}
            assert b"\r\nX-Evil" not in reply.data
        assert "X-Evil" not in rig.upstream.last.headers
        assert rig.upstream.last.target == "/x?b=%0d%0aX-Evil:1"


class Mangler:
    """Makes bodies that are not JSON, or not an object, out of one that is. Seeded, so a failure can be repeated."""

    GOOD = (
        b'{"model": "m", "messages": [{"role": "user", "content": "caf\xc3\xa9 \\u00e9 \\"q\\""}], "stream": false,'
        b' "temperature": 0.7, "max_tokens": 12, "stop": null, "tools": [{"f": {"model": "x"}}],'
        b' "logit_bias": {"1": -1.5e3}}'
    )
    ODD = (
        b"NaN",
        b"Infinity",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"'",
        b",",
        b"}",
        b"]",
        b"{",
        b"[",
        b'"',
        b"\\",
        b"\n",
        b"01",
    )

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def body(self) -> bytes:
        """Give the next one; json.loads agrees that it is broken."""
        while True:
            body = self._mangled(bytearray(self.GOOD))
            if not _is_object(body):
                return body

    def _mangled(self, body: bytearray) -> bytes:
        rng = self.rng
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(body) or 1)
            match rng.randrange(7):
                case 0:
                    del body[at:]
                case 1:
                    del body[at : at + rng.randrange(1, 5)]
                case 2:
                    body[at:at] = rng.choice(self.ODD)
                case 3:
                    body[at : at + 1] = rng.randbytes(1)
                case 4:
                    body += rng.choice((*self.ODD, b"{}", b"x", bytes(body)))
                case 5:
                    body[:0] = rng.choice((b"\xef\xbb\xbf", b"[", b'"', b"x", b")]}',\n"))
                case 6:
                    depth = rng.choice((1, 201, 5000))
                    body[at:at] = rng.choice((b"[", b'{"a":')) * depth
        return bytes(body)


def _is_object(body: bytes) -> bool:
    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        return isinstance(json.loads(body.decode(), parse_constant=no_constant), dict)
    except (ValueError, RecursionError):
        return False


async def test_five_thousand_mangled_bodies_are_all_400(http: aiohttp.ClientSession) -> None:
    mangler = Mangler(20261121)
    bodies = [mangler.body() for _ in range(5000)]
    async with rig_of(model("m")) as rig:
        todo = iter(bodies)

        async def send() -> None:
            for body in todo:
                async with http.post(rig.url + CHAT, data=body, headers={"Content-Type": "application/json"}) as answer:
                    assert answer.status == 400, body
                    assert orjson.loads(await answer.read())["error"]["code"] in {"invalid_json", "invalid_model"}, body

        async with asyncio.timeout(40):
            await asyncio.gather(*(send() for _ in range(8)))
        assert not rig.starts
        assert not rig.upstream.seen


async def test_mangled_bodies_of_any_type_are_4xx(http: aiohttp.ClientSession) -> None:
    mangler, rng = Mangler(7), random.Random(7)
    types = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "",
    ]
    async with rig_of(model("m")) as rig:
        for _ in range(500):
            body = rng.choice(
                [mangler.body(), rng.randbytes(rng.randrange(200)), b"--b\r\n" + mangler.body() + b"\r\n--b--"]
            )
            headers = {"Content-Type": rng.choice(types)}
            async with http.post(rig.url + CHAT, data=body, headers=headers) as answer:
                assert 400 <= answer.status < 500, (body, headers)
        assert not rig.starts
