"""An upstream with websockets: `python sockets_upstream.py PORT`. Echoes, closes with a code it is told, or refuses."""

import sys

from aiohttp import WSMsgType, web

FRAME_BYTES_MAX = 128 << 20


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Echo what comes; `close CODE REASON` closes."""
    socket = web.WebSocketResponse(max_msg_size=FRAME_BYTES_MAX, protocols=("chat",), compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT and message.data.startswith("close "):
            _, code, reason = message.data.split(" ", 2)
            await socket.close(code=int(code), message=reason.encode())
        elif message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


async def refuse(request: web.Request) -> web.Response:
    """Refuse the upgrade with a status of our own."""
    return web.Response(status=418, text="no sockets here", headers={"X-Why": "teapot"})


async def health(request: web.Request) -> web.Response:
    """Be ready."""
    return web.Response()


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/echo", echo), web.get("/refuse", refuse)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
