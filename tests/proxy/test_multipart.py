"""Uploads: the model's name found and replaced, every other byte of the form kept."""

import hashlib
import random
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from llmswap.proxy import multipart
from llmswap.proxy.bodies import BodyLimits
from llmswap.proxy.errors import RequestError
from llmswap.proxy.multipart import PARTS_MAX, PartFinder
from tests.proxy.rig import model, rig_of
from tests.raw import request

PATH = "/v1/audio/transcriptions"


def form(*parts: bytes, boundary: bytes = b"XX") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def field(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value


FILE = field(
    b"file", b"\r\n--X\x00\xff--XY\r\n\r\n", b'; filename="a \\"b\\".wav"\r\nContent-Type: audio/x-wav\r\nX-Own: 1'
)


def found(body: bytes, boundary: bytes = b"XX", step: int = 1 << 30) -> PartFinder:
    finder = PartFinder(boundary)
    for start in range(0, len(body), step):
        finder.feed(body[start : start + step])
    finder.finish()
    return finder


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (form(field(b"model", b"m"), FILE), "m"),
        (form(FILE, field(b"model", b"org/name")), "org/name"),
        (form(FILE, field(b"model", b"")), ""),
        (form(field(b"model", "é\r\n x".encode())), "é\r\n x"),
        (form(b"content-disposition:form-data;name=model\r\nContent-Type: text/plain\r\n\r\nm"), "m"),
        (form(field(b"models", b"x"), field(b"a", b"model")), None),
        (form(b'X: Content-Disposition: form-data; name="model"\r\n\r\nno'), None),
        (b"preamble\r\n" + form(b"\r\nno head at all", field(b"model", b"m")) + b"epilogue\r\n--XX\r\n", "m"),
        (b"--XX \t\r\n" + field(b"model", b"m") + b"\r\n--XX--", "m"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 30])
def test_the_field_is_found_however_the_form_is_cut_up(body: bytes, name: str | None, step: int) -> None:
    finder = found(body, step=step)
    assert finder.model == name
    if name:
        assert body[slice(*finder.span)] == name.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        b"--XX\r\n" + field(b"model", b"m"),
        form(field(b"model", b"m"))[:-4],
        b"--XX junk\r\n" + field(b"model", b"m") + b"\r\n--XX--",
        form(field(b"model", b"m"), field(b"model", b"n")),
        form(field(b"model", b"\xff")),
        form(field(b"model", b"m" * 17_000)),
        form(field(b"a", b"1", b"; x=" + b"y" * 20_000)),
        form(*[field(b"a", b"1")] * (PARTS_MAX + 1)),
    ],
)
@pytest.mark.parametrize("step", [11, 1 << 30])
def test_a_form_that_is_none_is_refused(body: bytes, step: int) -> None:
    with pytest.raises(RequestError) as caught:
        found(body, step=step)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ('form-data; name="model"', "model"),
        ("form-data;NAME=model", "model"),
        ('form-data; filename="a; name=no"; name = "model"', "model"),
        ('form-data; filename="a\\"; name=no"; name="mo\\del"', "model"),
        ("form-data; name*=utf-8''model", ""),
        ('form-data; filename="name=model"', ""),
        ("form-data", ""),
        ('form-data; name="', ""),
    ],
)
def test_a_header_parameter_is_read_with_its_quotes(header: str, value: str) -> None:
    assert multipart._parameter(header, "name") == value


@pytest.mark.parametrize("piece", [";", "; ", ';a="', ';a="\\"', ';a="\\\\', ";a=b", '"', "\\"])
def test_a_header_parameter_is_looked_for_in_linear_time(piece: str) -> None:
    header = 'form-data; x="' + piece * (16_000 // len(piece))
    began_s = time.perf_counter()
    multipart._parameter(header, "name")
    assert time.perf_counter() - began_s < 0.2


def test_what_is_held_while_searching_is_little() -> None:
    finder = PartFinder(b"XX")
    finder.feed(b"--XX\r\n" + field(b"file", b""))
    for _ in range(100):
        finder.feed(random.Random(1).randbytes(65536).replace(b"\r\n--XX", b""))
        assert len(finder._buffer) < 100


async def test_the_upload_reaches_the_upstream_byte_for_byte() -> None:
    body = b"hello\r\n" + form(FILE, field(b"model", b"m"), field(b"z", b"1")) + b"bye"
    async with rig_of(model("m")) as rig:
        reply = await rig.raw(request("POST", PATH, body, headers="Content-Type: multipart/form-data; boundary=XX\r\n"))
        assert reply.status == 200
        assert rig.upstream.last.body == body
        assert rig.upstream.last.headers["Content-Length"] == str(len(body))
        assert rig.upstream.last.headers["Content-Type"] == "multipart/form-data; boundary=XX"


async def test_the_upstreams_own_name_replaces_only_the_name() -> None:
    before, after = form(FILE, field(b"model", b"alias"), FILE), form(FILE, field(b"model", b"real/name"), FILE)
    async with rig_of(model("m", aliases=("alias",), use_model_name="real/name")) as rig:
        headers = 'Content-Type: Multipart/Form-Data; boundary="XX"\r\n'
        reply = await rig.raw(request("POST", PATH, before, headers=headers))
        assert reply.status == 200
        assert rig.upstream.last.body == after
        assert rig.upstream.last.headers["Content-Length"] == str(len(after))


async def test_an_upload_of_unknown_length_passes_too(http: aiohttp.ClientSession) -> None:
    noise = random.Random(3).randbytes(3 * 2**20)
    body = form(field(b"file", noise, b'; filename="a.wav"'), field(b"model", b"m"))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 300_000):
            yield body[start : start + 300_000]

    async with rig_of(model("m")) as rig:
        headers = {"Content-Type": "multipart/form-data; boundary=XX"}
        async with http.post(rig.url + PATH, data=pieces(), headers=headers) as answer:
            assert answer.status == 200
        assert hashlib.sha256(rig.upstream.last.body).digest() == hashlib.sha256(body).digest()
        assert rig.upstream.last.headers["Content-Length"] == str(len(body))


async def test_an_upload_beyond_the_limit_is_refused() -> None:
    async with rig_of(model("m"), limits=BodyLimits(upload_max=500, json_max=10)) as rig:
        headers = "Content-Type: multipart/form-data; boundary=XX\r\n"
        assert (await rig.raw(request("POST", PATH, form(field(b"model", b"m")), headers=headers))).status == 200
        body = form(field(b"model", b"m"), field(b"x", b"y" * 500))
        assert (await rig.raw(request("POST", PATH, body, headers=headers))).status == 413
        async with await rig.connect() as client:  # by its own word, so nothing of it need come
            await client.send(request("POST", PATH, headers=headers + "Content-Length: 501\r\n"))
            assert (await client.read_to_end(5)).status == 413


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "b" * 101, 400),
        ("multipart/form-data; boundary=YY", 400),
        ("multipart/form-data; boundary=XX", 404),
    ],
)
async def test_forms_without_a_boundary_or_a_model_are_refused(content_type: str, status: int) -> None:
    async with rig_of(model("m")) as rig:
        body = form(field(b"x", b"1"))
        assert (
            await rig.raw(request("POST", PATH, body, headers=f"Content-Type: {content_type}\r\n"))
        ).status == status
