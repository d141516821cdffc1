"""What observers are told of requests for models, however they end; and that nothing of theirs harms a request."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from llmswap.config.settings import AccessSettings
from llmswap.core.commands import RejectReason
from llmswap.runtime.observing import HeaderFields, RequestOutcome, RequestRecord, UpstreamError
from tests.proxy.rig import Rig, model, rig_of
from tests.proxy.test_inference import CHAT, post
from tests.stack import until


class Observer:
    """Keeps what it sees."""

    def __init__(self, rig: Rig) -> None:
        self.waiting: list[RequestRecord] = []
        self.over: list[RequestRecord] = []
        self.fields: HeaderFields = ()
        rig.context.observer = self

    def waits(self, record: RequestRecord) -> None:
        self.waiting.append(record)

    def sends(self, record: RequestRecord) -> HeaderFields:
        assert record.granted_s is not None
        return self.fields

    def ended(self, record: RequestRecord) -> None:
        self.over.append(record)

    async def last(self) -> RequestRecord:
        await until(lambda: bool(self.over), "the record is closed")
        (record,) = self.over
        return record


async def test_a_served_request_leaves_one_record_with_its_times_in_order(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        observer = Observer(rig)
        await post(http, rig, {"model": "m", "stream": True})
        record = await observer.last()
    assert (record.route, record.model, record.asked, record.serving) == (CHAT, "m", "m", "m")
    assert (record.status, record.upstream_status, record.outcome) == (200, 200, RequestOutcome.OK)
    assert record.stream
    assert record.bytes_out == len(b'{"ok": true}')
    times = (record.began_s, record.entered_s, record.granted_s, record.sent_s, record.first_byte_s, record.ended_s)
    assert sorted(time for time in times if time is not None) == list(times)
    assert record.swap_s is not None


async def test_who_waits_is_shown_when_it_begins_to(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        observer, rig.auto = Observer(rig), False
        asked = asyncio.create_task(post(http, rig, {"model": "m"}))
        await until(lambda: bool(observer.waiting), "it waits")
        assert (observer.waiting[0].waiting, observer.waiting[0].granted_s) == (1, None)
        rig.ready()
        await asked
        assert await observer.last() is observer.waiting[0]


async def test_what_an_observer_gives_goes_upstream_in_place_of_the_clients_own(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        Observer(rig).fields = (("traceparent", "00-ours"),)
        await post(http, rig, {"model": "m"}, traceparent="00-theirs")
        assert rig.upstream.last.headers.getall("traceparent") == ["00-ours"]


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ({"model": "nobody"}, 404, RequestOutcome.CLIENT_ERROR),
        ({}, 404, RequestOutcome.CLIENT_ERROR),
        (b"{", 400, RequestOutcome.CLIENT_ERROR),
    ],
)
async def test_a_request_for_no_model_is_a_clients_error(http, body, status, outcome) -> None:
    async with rig_of(model("m")) as rig:
        observer = Observer(rig)
        assert (await post(http, rig, body))[0] == status
        record = await observer.last()
    assert (record.status, record.model, record.outcome) == (status, None, outcome)


async def test_a_key_that_is_missing_is_a_clients_error_and_a_good_one_a_caller(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m"), access=AccessSettings(api_keys=("sk-right",))) as rig:
        observer = Observer(rig)
        await post(http, rig, {"model": "m"})
        await post(http, rig, {"model": "m"}, Authorization="Bearer sk-right")
        await until(lambda: len(observer.over) == 2, "both are closed")
    refused, served = observer.over
    assert (refused.status, refused.outcome, refused.caller_class) == (401, RequestOutcome.CLIENT_ERROR, "_other")
    assert served.caller_class.startswith("key:")


@pytest.mark.parametrize(
    ("status", "outcome", "error"),
    [
        (500, RequestOutcome.UPSTREAM_ERROR, UpstreamError.HTTP_5XX),
        (422, RequestOutcome.CLIENT_ERROR, UpstreamError.HTTP_4XX),
    ],
)
async def test_an_upstreams_refusal_is_told_from_ours(http, status, outcome, error) -> None:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    async with rig_of(model("m")) as rig:
        observer, rig.upstream.answer = Observer(rig), refuse
        await post(http, rig, {"model": "m"})
        record = await observer.last()
    assert (record.upstream_status, record.outcome, record.upstream_error) == (status, outcome, error)


async def test_an_upstream_that_breaks_off_is_its_own_outcome(http: aiohttp.ClientSession) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with rig_of(model("m")) as rig:
        observer, rig.upstream.answer = Observer(rig), break_off
        with pytest.raises(aiohttp.ClientError):
            await post(http, rig, {"model": "m"})
        record = await observer.last()
    assert (record.outcome, record.upstream_error) == (RequestOutcome.UPSTREAM_ERROR, UpstreamError.RESET)


async def test_a_failed_start_is_told_from_a_failed_answer(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        observer, rig.auto = Observer(rig), False
        asked = asyncio.create_task(post(http, rig, {"model": "m"}))
        await until(lambda: bool(rig.starts), "it starts")
        rig.fail("no such file")
        assert (await asked)[0] == 502
        record = await observer.last()
    assert (record.refusal, record.outcome) == (RejectReason.UPSTREAM_FAILED, RequestOutcome.SWAP_FAILED)
    assert record.upstream_error is None


@pytest.mark.parametrize("waiting", [True, False], ids=["while it waits", "while it is served"])
async def test_a_client_that_leaves_is_no_error(http: aiohttp.ClientSession, waiting: bool) -> None:
    held = asyncio.Event()

    async def hold(_request: web.Request) -> web.StreamResponse:
        await held.wait()
        return web.Response()

    async with rig_of(model("m")) as rig:
        observer, rig.auto, rig.upstream.answer = Observer(rig), not waiting, hold
        asked = asyncio.create_task(post(http, rig, {"model": "m"}))
        await until(lambda: rig.waiting("m") == 1 if waiting else bool(rig.upstream.seen), "it is under way")
        asked.cancel()
        record = await observer.last()
        if waiting:
            rig.ready()
        held.set()
    assert (record.status, record.outcome) == (499, RequestOutcome.CLIENT_DISCONNECT)


async def test_routes_that_are_for_no_model_leave_no_record(http: aiohttp.ClientSession) -> None:
    async with rig_of(model("m")) as rig:
        observer = Observer(rig)
        async with http.get(rig.url + "/v1/models") as answer:
            assert answer.status == 200
        await post(http, rig, {"model": "m"})
        assert (await observer.last()).route == CHAT
