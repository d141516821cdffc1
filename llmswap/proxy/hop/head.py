"""Heads: a request's is written, a response's is parsed. A small strict grammar; what does not fit is refused. Pure."""

import re

from aiohttp import web

from llmswap.proxy.errors import RequestError
from llmswap.proxy.hop.body import Body, ChunkedBody, CountedBody, Malformed, OpenBody
from llmswap.proxy.hop.messages import Head, Outgoing

HEAD_MAX = 32 * 1024
_FIELDS_MAX = 64
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_DIGITS = re.compile(r"[0-9]{1,18}")
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"))
_SPECIAL = _HOP_BY_HOP | {"content-encoding", "content-length", "content-type", "server"}
_SENT_ON = frozenset(("content-encoding", "content-length", "content-type"))
_STRIPPED_PREFIXES = ("access-control-", "proxy-", "x-llmswap-")
_FRAMING = _HOP_BY_HOP | {"content-length", "expect", "proxy-connection"}
_SENDS_LENGTH = frozenset(("POST", "PUT", "PATCH"))
_NO_BODY = frozenset((204, 304))


def parse_head(block: bytes) -> Head:
    """Parse a response head, without its closing empty line.

    Raises:
        Malformed: It is not the grammar we accept.
    """
    lines = block.decode("utf-8", "replace").split("\r\n")
    status_line = _STATUS_LINE.fullmatch(lines[0])
    if status_line is None:
        raise Malformed("its status line is not HTTP/1.x")
    if len(lines) > _FIELDS_MAX + 1:
        raise Malformed(f"it sent more than {_FIELDS_MAX} headers")
    fields: list[tuple[str, str]] = []
    special: dict[str, str] = {}
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Malformed("it sent a header line that is not `name: value`")
        name, value = field.groups()
        value = value.rstrip(" \t")
        key = name.lower()
        if key in _SPECIAL:
            _note(special, key, value)
            if key not in _SENT_ON:
                continue
        elif key.startswith(_STRIPPED_PREFIXES):
            continue
        fields.append((name, value))
    minor, status, reason = status_line.groups()
    return _head(fields, special, minor == "1", int(status), reason or "")


def _note(special: dict[str, str], key: str, value: str) -> None:
    if key not in special:
        special[key] = value
    elif key in ("content-length", "transfer-encoding"):
        raise Malformed(f"it sent {key} twice")
    else:
        special[key] += "," + value


def _head(fields: list[tuple[str, str]], special: dict[str, str], is_11: bool, status: int, reason: str) -> Head:  # noqa: FBT001
    length: int | None = None
    chunked = False
    if (coding := special.get("transfer-encoding")) is not None:
        if coding.lower() != "chunked" or "content-length" in special or not is_11:
            raise Malformed("its framing is ambiguous")
        chunked = True
    elif (digits := special.get("content-length")) is not None:
        if _DIGITS.fullmatch(digits) is None:
            raise Malformed("its Content-Length is not a number")
        length = int(digits)
    keep_alive = is_11
    if (connection := special.get("connection")) is not None:
        named = {token.strip(" \t").lower() for token in connection.split(",")}
        keep_alive = is_11 and "close" not in named
        fields = [(name, value) for name, value in fields if name.lower() not in named or name.lower() in _SPECIAL]
    kind, coding = special.get("content-type", ""), special.get("content-encoding", "")
    return Head(status, reason, fields, keep_alive, length, chunked, kind, coding)


def body_after(head: Head, method: str) -> Body:
    """Give the decoder of the body that follows a response's head."""
    if method == "HEAD" or head.status in _NO_BODY or head.status < 200:
        return CountedBody(0)
    if head.chunked:
        return ChunkedBody()
    return OpenBody() if head.length is None else CountedBody(head.length)


def request_head(outgoing: Outgoing, target: str, *, upgrade: bool) -> bytes:
    """Write a request's head.

    Raises:
        RequestError: 400, if something in it would break out of its line.
    """
    fields = [f"{name}: {value}" for name, value in outgoing.headers.items() if name.lower() not in _FRAMING]
    body = outgoing.body
    if isinstance(body, bytes):
        if body or outgoing.method in _SENDS_LENGTH:
            fields.append(f"Content-Length: {len(body)}")
    elif body is None:
        if outgoing.method in _SENDS_LENGTH:
            fields.append("Content-Length: 0")
    elif outgoing.body_size is not None:
        fields.append(f"Content-Length: {outgoing.body_size}")
    else:
        fields.append("Transfer-Encoding: chunked")
    if upgrade:
        fields += ("Connection: Upgrade", "Upgrade: websocket")
    head = "\r\n".join((f"{outgoing.method} {target} HTTP/1.1", *fields, "", ""))
    line_count = len(fields) + 2
    if head.count("\n") != line_count or head.count("\r") != line_count or "\0" in head or " " in target:
        raise RequestError(400, "the request holds a line break or a space where none may be")
    return head.encode("utf-8", "surrogateescape")


def wants_upgrade(request: web.BaseRequest) -> bool:
    """Say whether a client asks for a websocket."""
    upgrade = request.headers.get("Upgrade")
    if upgrade is None or "websocket" not in upgrade.lower():
        return False
    connection = ",".join(request.headers.getall("Connection", ())).lower()
    return "upgrade" in (token.strip() for token in connection.split(","))
