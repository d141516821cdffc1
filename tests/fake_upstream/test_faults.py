"""Failure injection: the grammar, and what each fault does to a request or a stream."""

import asyncio
import contextlib
import gzip
import itertools
import json
import zlib

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmswap.fake_upstream.faults import FAULTS, Armed, BadFault, Faults
from tests.fake_upstream.harness import CHAT, events_of, served, until

PATH = "/v1/chat/completions"
STREAM = {**CHAT, "stream": True}
EXAMPLES = {"k": "2", "seconds": "0.1", "code": "418", "url": "http://127.0.0.1:1/x", "k:seconds": "2:0.1"}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_written_as_its_help_says(name):
    wanted = FAULTS[name][0]
    argument = EXAMPLES.get(wanted)
    text = f"{name}:{argument}" if argument else name
    fault = Armed.parse(f"{text}@3")
    assert (fault.name, fault.nth) == (name, 3)
    assert ":".join(fault.args) == (argument or "")


@pytest.mark.parametrize(
    "text", ["nope", "", "stall:2", "stall", "http_status", "http_status:x", "http_503:often", "health_lies:maybe",
             "crash_after:-1", "orphan_grandchild:dog"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(BadFault):
        Armed.parse(text)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text):
    with contextlib.suppress(BadFault):
        assert Armed.parse(text).name in FAULTS


def test_nth_counts_occasions_from_arming():
    faults = Faults(["http_503@2"], seed=1)
    assert [faults.fires("http_503") is not None for _ in range(4)] == [False, True, False, False]
    faults.arm("http_503@1")
    assert faults.fires("http_503")


def test_probability_is_about_right_and_repeatable():
    def draws():
        faults = Faults(["http_503:0.3"], seed=7)
        return [faults.fires("http_503") is not None for _ in range(1000)]

    assert draws() == draws()
    assert 230 < sum(draws()) < 370


@pytest.mark.parametrize(("fault", "status"), [("http_429", 429), ("http_503", 503), ("http_status:418", 418)])
async def test_status_faults_refuse_the_chosen_occasion_only(fault, status):
    async with served("--fail", f"{fault}@1") as fake:
        assert (await fake.post(PATH, CHAT))[0] == status
        assert (await fake.post(PATH, CHAT))[0] == 200


async def test_faults_are_armed_and_cleared_live():
    async with served() as fake:
        assert (await fake.post("/_fake/fail", {"fail": "http_503"}))[0] == 200
        assert (await fake.post(PATH, CHAT))[0] == 503
        async with fake.http.delete("/_fake/fail") as response:
            assert await response.json() == []
        assert (await fake.post(PATH, CHAT))[0] == 200
        status, body = await fake.post("/_fake/fail", {"fail": "nope"})
        assert status == 400
        assert "no fault 'nope'" in body["error"]


async def test_redirects_point_where_they_are_told():
    async with (
        served("--fail", "redirect:http://169.254.169.254/latest") as fake,
        fake.http.post(PATH, json=CHAT, allow_redirects=False) as response,
    ):
        assert (response.status, response.headers["Location"]) == (302, "http://169.254.169.254/latest")


async def test_lying_health_says_ok_while_requests_fail():
    async with served("--fail", "health_lies") as fake:
        assert (await fake.get("/health"))[0] == 200
        assert (await fake.post(PATH, CHAT))[0] == 500


@pytest.mark.parametrize(("fault", "path"), [("hang", PATH), ("health_lies:hang", PATH), ("health_hang", "/health")])
async def test_hanging_faults_never_answer(fault, path):
    async with served("--fail", fault) as fake:
        request = asyncio.create_task(fake.post(path, CHAT) if path == PATH else fake.get(path))
        await until(lambda: fake.fake.journal.count == 1)
        done, _ = await asyncio.wait({request}, timeout=0.1)
        assert not done
        request.cancel()


async def test_health_503_and_never_anything_else():
    async with served("--fail", "health_503") as fake:
        assert [(await fake.get("/health"))[0] for _ in range(3)] == [503] * 3


@pytest.mark.parametrize("fault", ["reset", "disconnect_midstream:0"])
async def test_a_reset_leaves_the_client_without_an_answer(fault):
    async with served("--fail", fault) as fake:
        with pytest.raises(aiohttp.ClientConnectionError):
            await fake.post(PATH, CHAT)
        await until(lambda: fake.fake.journal.show()["calls"][0]["outcome"] == "cut")


async def test_a_reused_connection_is_reset_but_not_a_new_one():
    async with served("--fail", "reset_reused@1") as fake:
        assert (await fake.post(PATH, CHAT))[0] == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await fake.post(PATH, CHAT)
        calls = await fake.calls()
        assert calls[0]["peer"] == calls[1]["peer"]


async def read_until_broken(fake):
    """Give what a stream brought, and whether it broke."""
    seen = b""
    async with fake.http.post(PATH, json=STREAM) as response:
        try:
            async for piece in response.content.iter_any():
                seen += piece
        except aiohttp.ClientPayloadError:
            return seen.decode(), True
    return seen.decode(), False


async def test_a_disconnect_breaks_the_stream_after_k_tokens():
    async with served("--fail", "disconnect_midstream:3") as fake:
        text, broken = await read_until_broken(fake)
        assert broken
        assert len(events_of(text)) == 1 + 3


async def test_a_clean_early_end_has_no_last_events():
    async with served("--fail", "end_midstream:3") as fake:
        text, broken = await read_until_broken(fake)
        assert not broken
        assert len(events_of(text)) == 1 + 3
        assert "[DONE]" not in text


async def test_an_error_chunk_comes_under_status_200():
    async with served("--fail", "error_chunk:2") as fake:
        events = await fake.events(PATH, CHAT)
        assert events[-2][1]["error"]["code"] == 500
    async with served("--fail", "error_chunk:2") as fake:
        events = await fake.events("/v1/messages", {**CHAT, "max_tokens": 9})
        assert events[-1][0] == "error"
        assert events[-1][1]["error"]["type"] == "api_error"


async def test_a_stall_is_a_gap_at_its_place():
    async with served("--time-scale", "1", "--fail", "stall:2:0.2") as fake:
        loop, times = asyncio.get_running_loop(), []
        async with fake.http.post(PATH, json=STREAM) as response:
            async for line in response.content:
                if b'"content": "' in line and b'"content": ""' not in line:
                    times.append(loop.time())
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert gaps[1] > 0.15
        assert gaps[1] == max(gaps)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("no_usage", "absent"), ("null_usage", None),
     ("usage_zero", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})],
)  # fmt: skip
async def test_usage_faults(fault, expected):
    async with served("--fail", fault) as fake:
        _, body = await fake.post(PATH, CHAT)
        assert body.get("usage", "absent") == expected


async def stream_bytes(*flags):
    async with served(*flags) as fake, fake.http.post(PATH, json=STREAM, headers={"Accept-Encoding": ""}) as response:
        pieces = [piece async for piece, _ in response.content.iter_chunks()]
        return pieces, response.headers


async def test_a_bad_chunk_is_one_line_among_good_ones():
    pieces, _ = await stream_bytes("--fail", "bad_json_chunk")
    lines = [line.removeprefix(b"data: ") for line in b"".join(pieces).splitlines() if line and b"[DONE]" not in line]

    def good(line):
        try:
            return bool(json.loads(line))
        except ValueError:
            return False

    assert [good(line) for line in lines].count(False) == 1
    assert len(lines) > 6


async def test_crlf_ends_every_line():
    pieces, _ = await stream_bytes("--fail", "crlf")
    text = b"".join(pieces)
    assert text.count(b"\n") == text.count(b"\r\n") > 10


async def test_a_split_character_arrives_in_two_chunks_and_is_whole_together():
    pieces, _ = await stream_bytes("--fail", "split_utf8")
    with pytest.raises(UnicodeDecodeError):
        [piece.decode() for piece in pieces]
    assert "\u00e9\u2603" in b"".join(pieces).decode()


async def test_a_giant_chunk_has_its_size():
    pieces, _ = await stream_bytes("--fail", "giant_chunk:300000")
    assert max(map(len, b"".join(pieces).splitlines())) > 300_000


async def test_gzip_is_sent_unasked_and_flushed_event_by_event():
    async with (
        served("--fail", "gzip") as fake,
        aiohttp.ClientSession(fake.http._base_url, auto_decompress=False) as http,
    ):
        async with http.post(PATH, json=STREAM) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            first, _ = await response.content.readchunk()
            assert b"assistant" in zlib.decompressobj(31).decompress(first)
            rest = await response.content.read()
        assert b"[DONE]" in gzip.decompress(first + rest)
        async with http.post(PATH, json=CHAT) as response:
            assert b"usage" in gzip.decompress(await response.read())
