"""`/health`, by persona, and the faults that make it lie."""

import asyncio

from aiohttp import web

from llmswap.fake_upstream.errors import error_response
from llmswap.fake_upstream.state import FAKE, json_response


async def health(request: web.Request) -> web.Response:
    """Say whether it can serve. It stays healthy while asleep, as the engines do."""
    fake = request.app[FAKE]
    if fake.faults.fires("health_hang"):
        await asyncio.Event().wait()
    well = fake.engine.phase.well
    if fake.faults.fires("health_503"):
        well = False
    if fake.options.persona == "vllm":
        return web.Response(status=200 if well else 503)
    if not well:
        return error_response(fake.options.persona, request.path, 503, "Loading model")
    return json_response({"status": "ok"})
