"""Host, Origin and Sec-Fetch-Site: what other people's pages may make a browser do here."""

import itertools

import pytest

from llmswap.config.settings import AccessSettings
from llmswap.core.states import State
from llmswap.proxy import origin
from tests.proxy.front import KEY, ask, front

GOOD_HOSTS = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ui.localhost:1",
    "127.0.0.1",
    "127.0.0.1:65535",
    "127.8.8.8",
    "[::1]:8080",
]
MALFORMED_HOSTS = [
    "",
    ":8080",
    "[::1",
    "::1",
    "[]",
    "[gg::1]",
    "localhost:",
    "localhost:port",
    "localhost:123456",
    "localhost/admin",
    "localhost/admin?",
    "localhost#",
    "localhost?x",
    "user@localhost",
    "user:secret@localhost",
    "local host",
    "localhost,evil.example",
    "localhost\\evil",
    "%6cocalhost",
    "\u217cocalhost",
    ".",
]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "evillocalhost",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "[::2]",
    "0.0.0.0",
]

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def with_host(host: str, path: str = "/v1/models", headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n".encode()


async def test_without_keys_only_our_own_names_are_answered() -> None:
    async with front() as served:
        for host in GOOD_HOSTS:
            assert (await served.raw(with_host(host))).status == 200, host
        for host in FOREIGN_HOSTS:
            reply = await served.raw(with_host(host))
            assert reply.status == 421, host
            assert b"allowedHosts" in reply.body
        for host in MALFORMED_HOSTS:
            assert (await served.raw(with_host(host))).status == 400, host


async def test_open_routes_and_websockets_are_host_checked_too() -> None:
    async with front() as served:
        for path, headers in (("/health", ""), ("/", ""), ("/nowhere", ""), ("/upstream/m1/ws", UPGRADE)):
            assert (await served.raw(with_host("evil.example", path, headers))).status == 421, path


async def test_with_keys_any_host_name_is_answered_unless_hosts_are_listed() -> None:
    key = f"x-api-key: {KEY}\r\n"
    async with front(access=AccessSettings(api_keys=(KEY,))) as served:
        assert (await served.raw(with_host("box.lan", headers=key))).status == 200
        assert (await served.raw(with_host("box.lan/admin?", headers=key))).status == 400
        served.configure(AccessSettings(api_keys=(KEY,), allowed_hosts=("gpu.lan",)))
        assert (await served.raw(with_host("box.lan", headers=key))).status == 421
        assert (await served.raw(with_host("GPU.lan:8080", headers=key))).status == 200
        assert (await served.raw(with_host("localhost", headers=key))).status == 200


async def test_a_request_without_host_is_served_only_in_http_1_0() -> None:
    async with front() as served:
        assert (await served.raw(b"GET /health HTTP/1.0\r\n\r\n")).status == 200
        assert (await served.raw(b"GET /health HTTP/1.1\r\n\r\n")).status == 400
        assert (
            await served.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        ).status == 400


def test_the_host_name_of_an_absolute_target_is_not_what_counts() -> None:
    assert origin.host_name("evil.example") == "evil.example"
    assert not origin.host_allowed("evil.example", ())
    assert origin.host_allowed("evil.example", ("Evil.Example:99",))


# The forty cases: (origin, sec-fetch-site) x (method, path). True: may pass.
CALLERS = [
    (None, None, True),  # curl, SDKs
    (None, "none", True),  # typed by the user
    ("http://SELF", "same-origin", True),
    (None, "cross-site", False),
    (None, "same-site", False),
    ("https://evil.example", "cross-site", False),
    ("https://evil.example", None, False),
    ("null", "cross-site", False),
    ("http://localhost:1", "same-site", False),
    ("https://chat.example", "cross-site", True),  # listed in allowedOrigins
]
TARGETS = [
    ("GET", "/unload"),
    ("POST", "/api/models/unload"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/logs"),
]
MATRIX = list(itertools.product(CALLERS, TARGETS))
assert len(MATRIX) == 40


@pytest.mark.parametrize(("caller", "target"), MATRIX, ids=lambda value: "-".join(map(str, value[:2])))
async def test_pages_of_other_sites_change_nothing_and_read_nothing(
    caller: tuple[str | None, str | None, bool], target: tuple[str, str]
) -> None:
    asking, site, may = caller
    method, path = target
    async with front(access=AccessSettings(allowed_origins=("https://chat.example",))) as served:
        served.load("m1")
        headers = {} if site is None else {"Sec-Fetch-Site": site}
        if asking is not None:
            headers["Origin"] = asking.replace("SELF", f"127.0.0.1:{served.port}")
        answer = await ask(served, method, path, headers, data=b"{}" if method == "POST" else None)
        assert (answer.status != 403) == may, answer.text
        assert (served.state("m1") is State.STOPPED) == (may and "unload" in path)
        if asking == "https://chat.example":
            assert answer.headers["access-control-allow-origin"] == asking
        else:
            assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


async def test_a_websocket_from_a_foreign_page_is_refused_before_any_upstream_is_asked() -> None:
    async with front() as served:
        reply = await served.raw(with_host("localhost", "/upstream/m1/ws", UPGRADE + "Origin: http://evil.example\r\n"))
        assert reply.status == 403
        assert served.state("m1") is State.STOPPED


async def test_a_foreign_page_cannot_start_a_model_by_a_get() -> None:
    async with front() as served:
        answer = await ask(served, "GET", "/props?model=m1", {"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403
        assert served.state("m1") is State.STOPPED


async def test_a_foreign_origin_is_never_reflected() -> None:
    async with front() as served:
        for path in ("/v1/models", "/models", "/health", "/nowhere"):
            answer = await ask(served, "GET", path, {"Origin": "http://evil.example"})
            assert not [name for name in answer.headers if name.startswith("access-control-")], path


async def test_a_preflight_grants_only_to_listed_origins() -> None:
    async with front(access=AccessSettings(allowed_origins=("https://chat.example",))) as served:
        asked = {"Access-Control-Request-Method": "POST"}
        granted = await ask(served, "OPTIONS", "/v1/chat/completions", asked | {"Origin": "https://chat.example"})
        assert granted.status == 204
        assert granted.headers["access-control-allow-origin"] == "https://chat.example"
        assert "POST" in granted.headers["access-control-allow-methods"]
        assert "Authorization" in granted.headers["access-control-allow-headers"]
        for other in ("https://evil.example", "null", "https://chat.example.evil.example", "http://chat.example"):
            refused = await ask(served, "OPTIONS", "/v1/chat/completions", asked | {"Origin": other})
            assert refused.status == 204
            assert not [name for name in refused.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("forwarded", "trusted", "expected"),
    [
        (None, ("192.0.2.1",), "192.0.2.1"),
        ("203.0.113.9", (), "192.0.2.1"),
        ("203.0.113.9", ("198.51.100.1",), "192.0.2.1"),
        ("203.0.113.9", ("192.0.2.1",), "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", ("192.0.2.0/24",), "203.0.113.9"),  # the client may have made up the first
        ("203.0.113.9, 192.0.2.8", ("192.0.2.0/24",), "203.0.113.9"),
        ("<script>", ("192.0.2.1",), "192.0.2.1"),
    ],
)
def test_the_client_address_is_taken_from_trusted_proxies_only(
    forwarded: str | None, trusted: tuple[str, ...], expected: str
) -> None:
    assert origin.client_address("192.0.2.1", forwarded, trusted) == expected


@pytest.mark.parametrize(
    ("peer", "trusted", "believed"),
    [
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("10.1.2.3", ("10.1.2.3",), True),
        ("11.1.2.3", ("10.0.0.0/8", "::1"), False),
        ("::1", ("10.0.0.0/8", "::1"), True),
        ("", ("10.0.0.0/8",), False),
        ("not an address", ("10.0.0.0/8",), False),
        ("127.0.0.1", (), False),
    ],
)
def test_only_named_proxies_are_trusted(peer: str, trusted: tuple[str, ...], believed: bool) -> None:
    assert origin.is_trusted(peer, trusted) is believed
