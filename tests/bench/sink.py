"""`python -m tests.bench.sink PORT`: an OTLP receiver over HTTP that counts requests and keeps nothing."""

import sys

from aiohttp import web


async def _take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(content_type="application/x-protobuf")


if __name__ == "__main__":
    application = web.Application(client_max_size=64 << 20)
    application.router.add_post("/v1/traces", _take)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
