"""The few bytes of HTTP/1.1 that the bench's own client and upstream speak. Cheap on purpose: two cores run it all."""

import json
import re

MODEL = "bench"
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
SENT = re.compile(rb'"content":"(\d+\.\d+)"')
LAST_CHUNK = b"0\r\n\r\n"


def post(path: str, body: bytes, *, host: str = "127.0.0.1") -> bytes:
    """Write a keep-alive POST of a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def chat(size: int, *, model: str = MODEL, **extra: object) -> bytes:
    """Write a chat completion request of about `size` bytes of body."""
    body = {"model": model, "messages": [{"role": "user", "content": ""}], "temperature": 0.7, **extra}
    body["messages"] = [{"role": "user", "content": "w" * max(0, size - len(json.dumps(body)))}]
    return post("/v1/chat/completions", json.dumps(body).encode())


def response(status: str, body: bytes, kind: str = "application/json") -> bytes:
    """Write a whole response."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def completion(size: int, model: str = MODEL) -> bytes:
    """Write a chat completion response of about `size` bytes of body."""
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 60, "total_tokens": 360},
    }
    missing = max(0, size - len(json.dumps(answer)))
    answer["choices"] = [
        {"index": 0, "message": {"role": "assistant", "content": "w" * missing}, "finish_reason": "stop"}
    ]
    return response("200 OK", json.dumps(answer).encode())


def event(now_s: float) -> bytes:
    """Write one streamed token as one HTTP chunk: the time it was sent. As of engines, only that text is new."""
    data = (
        f'data: {{"id":"chatcmpl-bench","object":"chat.completion.chunk","model":"{MODEL}","choices":[{{"index":0,'
        f'"delta":{{"content":"{now_s:.6f}"}},"finish_reason":null}}]}}\n\n'
    ).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_TAIL = b"e\r\ndata: [DONE]\n\n\r\n" + LAST_CHUNK
