"""llama-swap's behaviour when it serves a model: rows 49 to 65 and 87 of the reference's section 8.2 and 8.3.

The config is read as a file would be; the upstream is one that records what reaches it.
"""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from llmswap.config.load import loads
from llmswap.proxy import loading
from tests.proxy.rig import Rig, rig_on
from tests.raw import request
from tests.stack import until

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}

CONFIG = """
models:
  m1:
    cmd: server --port ${PORT}
    aliases: [gpt-4]
  real:
    cmd: server --port ${PORT}
    aliases: [virtual]
    useModelName: upstream/name
  filtered:
    cmd: server --port ${PORT}
    filters:
      stripParams: "temperature, model, options.seed"
      setParams: {top_p: 0.5, temperature: 0.1, model: nope, nested.deep.key: [1]}
      setParamsByID:
        "filtered:hot": {temperature: 2}
  author:
    cmd: server --port ${PORT}
  author/model:
    cmd: server --port ${PORT}
  sockets:
    cmd: server --port ${PORT}
    compat: {ignoreWebsockets: true}
  narrow:
    cmd: server --port ${PORT}
    concurrencyLimit: 2
    sendLoadingState: true
"""


FIFO = "routing: {scheduler: {use: fifo}}\n"  # waiting requests count against the limit


async def post(rig: Rig, http: aiohttp.ClientSession, body: bytes, path: str = CHAT, **headers: str) -> tuple[int, Any]:
    async with http.post(rig.url + path, data=body, headers={**JSON, **headers}) as answer:
        text = await answer.read()
        return answer.status, orjson.loads(text) if answer.content_type == "application/json" else text.decode()


@pytest.mark.parametrize("body", [b"{}", b'{"messages":[]}', b'{"model":""}'])
async def test_g049_a_body_that_names_no_model_is_404(http: aiohttp.ClientSession, body: bytes) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        status, error = await post(rig, http, body)
        assert status == 404
        assert error["error"]["message"].startswith("no model id could be identified")


async def test_g049_ours_says_that_json_is_invalid_and_takes_json_of_any_type(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        assert (await post(rig, http, b'{"model":"m1"'))[0] == 400  # llama-swap: 404, as if no model were named
        form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl -d sends; llama-swap: 404
        assert (await post(rig, http, b'{"model":"m1"}', **form))[0] == 200
        assert (await post(rig, http, b"model=m1", **form))[0] == 200


async def test_g050_an_unknown_model_is_404_invalid_request_error(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        status, error = await post(rig, http, b'{"model":"unknown"}')
        assert (status, error["error"]["type"]) == (404, "invalid_request_error")
        assert not rig.starts


async def test_g051_errors_are_json_or_what_accept_prefers(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        _, error = await post(rig, http, b'{"model":"<b>"}')
        assert set(error) == {"src", "error"}
        assert set(error["error"]) == {"message", "type", "param", "code"}
        assert error["error"]["param"] is None
        _, text = await post(rig, http, b'{"model":"<b>"}', Accept="text/plain")
        assert text.startswith("llmswap: ")
        _, page = await post(rig, http, b'{"model":"<b>"}', Accept="text/html")
        assert "&lt;b&gt;" in page
        assert "<b>" not in page


async def test_g052_an_alias_stays_in_the_body_unless_the_upstream_has_its_own_name(
    http: aiohttp.ClientSession,
) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        await post(rig, http, b'{"model": "gpt-4", "n": 1}')
        assert rig.upstream.last.body == b'{"model": "gpt-4", "n": 1}'
        await post(rig, http, b'{"model": "virtual", "n": 1}')
        assert rig.upstream.last.body == b'{"model": "upstream/name", "n": 1}'
        assert rig.upstream.last.headers["Content-Length"] == "34"


async def test_g052_in_a_form_the_file_stays_as_it_was(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        part = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a;b.wav"\r\nContent-Type: audio/x-odd\r\n'
        )
        part += b"\r\n\x00\r\n--\xff\r\n"
        named = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        status, _ = await post(rig, http, part + named % b"virtual", "/v1/audio/transcriptions", **form)
        assert status == 200
        assert rig.upstream.last.body == part + named % b"upstream/name"
        assert rig.upstream.last.headers["Content-Length"] == str(len(part + named % b"upstream/name"))


async def test_g053_filters_apply_in_order_and_leave_the_rest(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        body = b'{"z": 1.0, "model":"filtered:hot","temperature":0, "options": {"seed":1 ,"a":1e2}'
        body += b', "big": 12345678901234567890}'
        assert (await post(rig, http, body))[0] == 200
        assert rig.upstream.last.body == (
            b'{"z": 1.0, "model":"filtered:hot", "options": {"a":1e2}, "big": 12345678901234567890'
            b',"nested":{"deep":{"key":[1]}},"temperature":2,"top_p":0.5}'
        )
        await post(rig, http, b'{"model":"filtered"}')
        assert rig.upstream.last.json == {
            "model": "filtered",
            "nested": {"deep": {"key": [1]}},
            "temperature": 0.1,
            "top_p": 0.5,
        }


async def test_g054_filters_need_a_json_content_type(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        body = b'{"model":"filtered","top_p":1}'
        await post(rig, http, body, **{"Content-Type": "application/json; charset=utf-8"})
        assert rig.upstream.last.json["top_p"] == 0.5
        await post(rig, http, body, "/v1/completions?model=filtered", **{"Content-Type": "text/plain"})
        assert rig.upstream.last.body == body


@pytest.mark.parametrize(
    ("path", "seen"),
    [("/v/chat/completions", "/chat/completions"), ("/audioapi/v1/tasks/run", "/v1/tasks/run")],
)
async def test_g055_prefixes_are_taken_off(http: aiohttp.ClientSession, path: str, seen: str) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        assert (await post(rig, http, b'{"model":"m1"}', path))[0] == 200
        assert rig.upstream.last.target == seen


async def test_g056_props_loads_the_model_of_its_query() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        assert (await rig.raw(request("GET", "/props?model=m1&autoload=false"))).status == 200
        assert [start.model for start in rig.starts] == ["m1"]
        assert (await rig.raw(request("GET", "/props"))).status == 404


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("POST", 308)])
async def test_g058_a_bare_upstream_redirects_with_its_query(method: str, status: int) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        reply = await rig.raw(request(method, "/upstream/m1?a=1&b=%2F"))
        assert (reply.status, reply.headers["location"]) == (status, "/upstream/m1/?a=1&b=%2F")


@pytest.mark.parametrize(
    ("path", "model", "seen"),
    [
        ("/upstream/author/model/v1/x", "author/model", "/v1/x"),
        ("/upstream/author%2Fmodel/v1/x", "author/model", "/v1/x"),
        ("/upstream/author/v1/x", "author", "/v1/x"),
        ("/upstream/m1/workflows%2Fa.json/x", "m1", "/workflows%2Fa.json/x"),
        ("/upstream/m1/%252F/%E2%82%AC", "m1", "/%252F/%E2%82%AC"),
    ],
)
async def test_g059_the_longest_model_wins_and_escapes_stay(path: str, model: str, seen: str) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        assert (await rig.raw(request("GET", path))).status == 200
        assert ([start.model for start in rig.starts], rig.upstream.last.target) == ([model], seen)


async def test_g060_static_files_start_nothing_and_are_served_once_ready() -> None:
    async with rig_on(loads(CONFIG)) as rig:
        assert (await rig.raw(request("GET", "/upstream/m1/foo.js"))).status == 409
        assert not rig.starts
        rig.auto = False
        starting = asyncio.create_task(rig.raw(request("GET", "/upstream/m1/")))
        await until(lambda: rig.starts, "the start is ordered")
        assert (await rig.raw(request("GET", "/upstream/m1/foo.js"))).status == 409
        rig.ready()
        assert (await starting).status == 200
        assert (await rig.raw(request("GET", "/upstream/m1/foo.js"))).status == 200


async def test_g062_a_selector_is_no_upstream() -> None:
    config = CONFIG + "selectors:\n  pick: {strategy: pin, targets: [m1]}\n"
    async with rig_on(loads(config)) as rig:
        assert (await rig.raw(request("GET", "/upstream/pick/x"))).status == 404
        assert not rig.starts


async def echo(asked: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(asked)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


async def test_g065_an_ignored_websocket_starts_nothing_and_holds_nothing_up(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG)) as rig:
        rig.auto = False

        async def upgrade() -> int:
            try:
                async with http.ws_connect(rig.url + "/upstream/sockets/ws"):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

        assert await upgrade() == 409
        assert not rig.starts
        starting = asyncio.create_task(rig.raw(request("GET", "/upstream/sockets/")))
        await until(lambda: rig.starts, "the start is ordered")
        assert await upgrade() == 409
        rig.ready()
        assert (await starting).status == 200
        rig.upstream.answer = echo
        async with http.ws_connect(rig.url + "/upstream/sockets/ws") as socket:
            await socket.send_str("x")
            assert (await socket.receive()).data == "x"
            assert rig.in_flight("sockets") == 0
            rig.auto, rig.upstream.answer = True, None
            assert (await post(rig, http, b'{"model":"m1"}'))[0] == 200  # swapped although the socket is open


async def test_g087_beyond_the_limit_it_is_429_even_for_a_loading_stream(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG + FIFO)) as rig:
        rig.auto = False
        waiting = [asyncio.create_task(post(rig, http, b'{"model":"narrow"}')) for _ in range(2)]
        await until(lambda: rig.waiting("narrow") == 2, "two wait")
        async with http.post(rig.url + CHAT, json={"model": "narrow", "stream": True}) as answer:
            error = await answer.json()
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert (error["error"]["code"], error["error"]["message"]) == ("concurrency_limit", "Too many requests")
        rig.ready()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]


async def test_g087_the_default_limit_is_ten(http: aiohttp.ClientSession) -> None:
    async with rig_on(loads(CONFIG + FIFO)) as rig:
        rig.auto = False
        waiting = [asyncio.create_task(post(rig, http, b'{"model":"m1"}')) for _ in range(10)]
        await until(lambda: rig.waiting("m1") == 10, "ten wait")
        assert (await post(rig, http, b'{"model":"m1"}'))[0] == 429
        rig.ready()
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}


async def test_g095_the_banner_never_goes_on_once_the_upstream_speaks(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "TICK_S", 0.001)  # it would have news long before the upstream is done

    async def slowly(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        for number in range(50):
            await response.write(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number)
            await asyncio.sleep(0.002)
        return response

    async with rig_on(loads(CONFIG)) as rig:
        rig.auto, rig.upstream.answer = False, slowly
        async with http.post(rig.url + CHAT, json={"model": "narrow", "stream": True}) as answer:
            text = await answer.content.readuntil(b"\n\n")  # then the client takes its time
            rig.ready()
            await until(lambda: rig.upstream.seen, "the upstream is asked")
            text += await answer.read()
    deltas = [orjson.loads(part[6:])["choices"][0]["delta"] for part in text.split(b"\n\n") if b"delta" in part]
    spoken = [delta.get("content") for delta in deltas]
    assert spoken[-50:] == [str(number) for number in range(50)]
    assert set(spoken[:-50]) == {None}
    assert all("reasoning_content" in delta for delta in deltas[:-50])
