"""A bare aiohttp relay: what forwarding costs with the library alone, to compare with.

`python -m tests.bench.relay PORT UPSTREAM_URL`
"""

import sys

import aiohttp
from aiohttp import web

UPSTREAM = web.AppKey("upstream", aiohttp.ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """Send the request on, stream the answer back."""
    body = await request.read()
    headers = {"Content-Type": request.headers.get("Content-Type", "")}
    async with request.app[UPSTREAM].request(request.method, request.raw_path, data=body, headers=headers) as answer:
        response = web.StreamResponse(status=answer.status)
        response.content_type = answer.content_type
        if answer.content_length is not None:
            response.content_length = answer.content_length
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


def main(port: int, upstream: str) -> None:
    """Serve until SIGTERM."""

    async def session(app: web.Application):
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(upstream, connector=connector, timeout=timeout, auto_decompress=False) as http:
            app[UPSTREAM] = http
            yield

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{tail:.*}", forward)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
