"""Sends one request and times its answer, over Locust's HTTP client."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import gevent
from gevent import socket, ssl
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastHttpSession, ResponseContextManager

from loadtests.samples import Ending, Sample
from loadtests.wire import Stream, Wire, error_code

KEY = "bG9hZCB0ZXN0cyBwaW4gaQ=="  # any 16 bytes
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
GOODBYE = b"\x88\x80\0\0\0\0"  # an empty close frame, masked with zeros
GOODBYE_S, HEAD_MAX = 5.0, 16 * 1024
REFUSALS = (429, 503)


class _PatienceError(gevent.Timeout):
    """The caller's patience is over."""


class _LeaveError(Exception):
    """The caller has seen enough of a stream."""


def ask(http: FastHttpSession, wire: Wire, patience_s: float | None, leaves_at: float, sample: Sample) -> None:
    """Send a request and put down what came of it. A run that ends meanwhile leaves the sample `open`.

    Args:
        http: The caller's connections.
        wire: The request.
        patience_s: Real seconds after which the caller hangs up; None for never.
        leaves_at: At which share of the stream the caller leaves; 1 for never.
        sample: Is filled in.
    """
    limit = _PatienceError(patience_s)
    exchange = _Exchange(http, wire, leaves_at, sample, time.perf_counter())
    limit.start()
    try:
        if wire.holds_s is None:
            exchange.request(limit)
        else:
            exchange.hold_socket()
    except _PatienceError:
        sample.ending = Ending.GAVE_UP
    except _LeaveError:
        sample.ending = Ending.LEFT
    except FAILURE_EXCEPTIONS as error:
        sample.ending, sample.why = Ending.CUT, type(error).__name__
    finally:
        limit.close()
        sample.e2e_s = time.perf_counter() - exchange.began_s


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request on its way."""

    http: FastHttpSession
    wire: Wire
    leaves_at: float
    sample: Sample
    began_s: float

    def request(self, limit: _PatienceError) -> None:
        """Send it, and read the answer."""
        wire, sample = self.wire, self.sample
        # With catch_response and without a `with`, Locust reports nothing: our own samples say more.
        response = self.http.request(
            wire.method, wire.path, data=wire.body, headers=wire.headers, stream=True, catch_response=True
        )
        error = getattr(response, "error", None)
        if limit.seconds is not None and not limit.pending:
            raise _PatienceError  # it has fired, and Locust's client took it for an error of the network's
        if not response.status_code:
            sample.ending, sample.why = Ending.CUT, type(error).__name__
            return
        try:
            sample.status = response.status_code
            self._note_headers(response.headers or {})
            if response.status_code != 200:
                self._note_refusal(response)
            elif wire.streams:
                self._read_stream(response)
            else:
                _ = response.content
                sample.ending = Ending.DONE
        finally:
            response.release()  # closes the connection of an answer that was not read to its end

    def _note_headers(self, headers: Mapping[str, str]) -> None:
        """Put down what llmswap says of the wait."""
        sample = self.sample
        sample.wait_s = _seconds(headers.get("X-LLMSwap-Queue-Seconds"))
        sample.swap_s = _seconds(headers.get("X-LLMSwap-Swap-Seconds"))
        sample.residency = headers.get("X-LLMSwap-Residency") or ""
        sample.served_by = headers.get("X-LLMSwap-Served-By") or ""

    def _note_refusal(self, response: ResponseContextManager) -> None:
        try:
            code = error_code(json.loads(response.content or b"null"))
        except ValueError:
            code = "error"
        self.sample.ending = Ending.REFUSED if response.status_code in REFUSALS else Ending.FAILED
        self.sample.why = f"{response.status_code} {code}"

    def _read_stream(self, response: ResponseContextManager) -> None:
        """Read a stream line by line as it comes: `iter_lines` of this client waits for a kilobyte first."""
        sample, stream, body = self.sample, Stream(), response._response  # noqa: SLF001  nothing else has readline
        leaves_after = max(1, round(self.leaves_at * self.wire.tokens)) if self.leaves_at < 1 else None
        try:
            while not stream.done and (line := body.readline(b"\n")):
                stream.line(line, time.perf_counter())
                if stream.pieces == leaves_after:
                    raise _LeaveError
            while stream.done and body.readline(b"\n"):
                pass  # what comes after [DONE] belongs to the answer: the connection can be used again
        finally:
            sample.pieces = stream.pieces
            if stream.pieces:
                sample.ttft_s = stream.first_s - self.began_s
                sample.gap_mean_s = stream.gap_mean_s
                sample.gap_max_s = stream.gap_max_s if stream.pieces > 1 else None
        if stream.error:
            sample.ending, sample.why = Ending.FAILED, f"200 {stream.error}"
        elif stream.done:
            sample.ending = Ending.DONE
        else:
            sample.ending, sample.why = Ending.CUT, "a stream without [DONE]"

    def hold_socket(self) -> None:
        """Open a websocket, hold it, and take leave."""
        address, wire, sample = urlsplit(self.http.base_url or ""), self.wire, self.sample
        secure = address.scheme == "https"
        link = socket.create_connection((address.hostname, address.port or (443 if secure else 80)))
        try:
            if secure:
                link = ssl.create_default_context().wrap_socket(link, server_hostname=address.hostname)
            lines = [f"GET {address.path.rstrip('/')}{wire.path} HTTP/1.1", f"Host: {address.netloc}"]
            lines += [f"{name}: {value}" for name, value in {**wire.headers, **UPGRADE}.items()]
            link.sendall("\r\n".join([*lines, "", ""]).encode())
            head = b""
            while b"\r\n\r\n" not in head and len(head) < HEAD_MAX and (piece := link.recv(4096)):
                head += piece
            first, *fields = head.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
            status = int(first.split(" ")[1]) if first.startswith("HTTP/") else 0
            self._note_headers({name.title().replace("Llmswap", "LLMSwap"): value.strip()
                                for name, _, value in (field.partition(":") for field in fields)})  # fmt: skip
            if status == 101:
                sample.status = 200
                gevent.sleep(wire.holds_s or 0.0)
                link.sendall(GOODBYE)
                link.settimeout(GOODBYE_S)
                while link.recv(4096):
                    pass  # the other side says goodbye, too, and hangs up
                sample.ending = Ending.DONE
            else:
                sample.status, sample.why = status, f"{status} websocket"
                sample.ending = Ending.REFUSED if status in REFUSALS else Ending.FAILED if status else Ending.CUT
        finally:
            link.close()


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
