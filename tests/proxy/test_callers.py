"""Who asks: as it says, by its key, or by where it comes from. Never a secret, never anything long or odd."""

import hashlib

import pytest

from llmswap.config.settings import AccessSettings
from llmswap.core.events import RequestArrived
from llmswap.core.step import Step
from llmswap.proxy.callers import address_class
from tests.proxy.rig import model, rig_of
from tests.raw import request

KEY = "sk-callers-0123456789"
OTHER = "sk-others-0123456789"
MARK = "key:" + hashlib.sha256(KEY.encode()).hexdigest()[:8]


async def caller(headers: str, access: AccessSettings | None = None) -> str:
    """Ask with these headers; give the caller the scheduler was told."""
    callers: list[str] = []

    def note(step: Step) -> None:
        if isinstance(step.event, RequestArrived):
            callers.append(step.event.caller)

    async with rig_of(model("m"), access=access) as rig:
        rig.loop.observe(note)
        data = request("POST", "/v1/chat/completions", b'{"model":"m"}', headers=headers)
        assert (await rig.raw(data)).status == 200
    assert len(callers) == 1
    return callers[0]


@pytest.mark.parametrize(
    ("claimed", "name"),
    [
        ("agent-7 (coder)", "agent-7 (coder)"),
        ("  padded  ", "padded"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64),
        ("x" * 4000, "x" * 64),
        ("caf\u00e9\tau lait", "caf??au lait"),
        ("", "loopback"),
        (" ", "loopback"),
        ("key:0123abcd", "loopback"),
        ("KEY:x", "loopback"),
        ("public", "loopback"),
        ("publicity", "publicity"),
    ],
)
async def test_a_caller_names_itself_within_bounds(claimed: str, name: str) -> None:
    said = await caller(f"X-LLMSwap-Caller: {claimed}\r\n")
    assert said == name


@pytest.mark.parametrize(
    "header", [f"Authorization: Bearer {KEY}", f"x-api-key: {KEY}", f"Authorization: bearer  {KEY} "]
)
@pytest.mark.parametrize("written", [KEY, "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()])
async def test_a_key_is_told_by_the_beginning_of_its_digest(header: str, written: str) -> None:
    access = AccessSettings(api_keys=(OTHER, written))
    assert await caller(f"{header}\r\n", access) == MARK
    assert await caller(f"{header}\r\nX-LLMSwap-Caller: me\r\n", access) == "me"


async def test_a_key_that_nobody_asked_for_tells_nothing() -> None:
    assert await caller(f"Authorization: Bearer {KEY}\r\n") == "loopback"


@pytest.mark.parametrize(
    "claimed", [KEY, f"me {KEY}", f"me:{KEY}!", OTHER, f"x{OTHER}x", f"{'x' * 60}{KEY}", f"Bearer {KEY}"]
)
async def test_a_key_is_no_name_and_reaches_no_record(claimed: str) -> None:
    access = AccessSettings(api_keys=(KEY, OTHER))
    assert await caller(f"Authorization: Bearer {KEY}\r\nX-LLMSwap-Caller: {claimed}\r\n", access) == MARK


@pytest.mark.parametrize("claimed", [OTHER, f"me  {OTHER} "])
async def test_a_key_of_which_only_the_digest_is_known_is_no_name(claimed: str) -> None:
    access = AccessSettings(api_keys=(KEY, "sha256:" + hashlib.sha256(OTHER.encode()).hexdigest()))
    assert await caller(f"Authorization: Bearer {KEY}\r\nX-LLMSwap-Caller: {claimed}\r\n", access) == MARK


@pytest.mark.parametrize(
    ("presented", "claimed", "name"),
    [(KEY, f"agent/{KEY}", "loopback"), ("none", "none", "loopback"), ("none", "nonesuch", "nonesuch")],
)
async def test_a_key_that_nobody_asked_for_is_no_name_either(presented: str, claimed: str, name: str) -> None:
    assert await caller(f"x-api-key: {presented}\r\nX-LLMSwap-Caller: {claimed}\r\n") == name


async def test_a_trusted_proxy_says_where_its_client_is() -> None:
    forwarded = "X-Forwarded-For: 192.168.1.5, 8.8.8.8\r\n"
    assert await caller(forwarded) == "loopback"
    assert await caller(forwarded, AccessSettings(trusted_proxies=("127.0.0.1",))) == "public"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("10.1.2.3", "private"),
        ("192.168.1.5", "private"),
        ("::ffff:172.16.0.1", "private"),
        ("100.64.0.7", "private"),
        ("169.254.1.1", "private"),
        ("fe80::1%eth0", "private"),
        ("fd00::1", "private"),
        ("8.8.8.8", "public"),
        ("2606:4700::1111", "public"),
        ("::ffff:8.8.8.8", "public"),
        ("", "public"),
        ("unix", "public"),
    ],
)
def test_addresses_are_told_apart_only_roughly(address: str, kind: str) -> None:
    assert address_class(address) == kind
