"""The routes of llama-server's router mode: which models are loaded, load one, unload one.

Loading and unloading answer at once; how far they are is told by `GET /models`. Its event stream is missing.
"""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from aiohttp import web

from llmswap.fake_upstream.dozing import strike
from llmswap.fake_upstream.engine import Refused
from llmswap.fake_upstream.router import Child, Router
from llmswap.fake_upstream.state import FAKE, json_response, read_json

ROUTER: web.AppKey[Router] = web.AppKey("router", Router)


def add_routes(app: web.Application) -> None:
    """Add them to an application that has its FAKE."""
    fake = app[FAKE]
    router = app[ROUTER] = Router(fake.engine)
    fake.attend = lambda request: _loaded(router, request) if request.method == "POST" else nullcontext()
    app.on_cleanup.append(lambda _: router.close())
    app.router.add_route("GET", "/models", models)
    app.router.add_route("POST", "/models/load", load)
    app.router.add_route("POST", "/models/unload", unload)


@asynccontextmanager
async def _loaded(router: Router, request: web.Request) -> AsyncIterator[None]:
    """Load the model that a request names, if it names one of ours."""
    name = None
    if request.content_type == "application/json" and not request.path.startswith("/models/"):
        try:
            name = json.loads(await request.read()).get("model")
        except (ValueError, AttributeError):
            name = None
    ours = isinstance(name, str) and name in router.children
    task: AbstractAsyncContextManager[None] = router.task(str(name)) if ours else nullcontext()
    async with task:
        yield


def _row(child: Child) -> dict[str, object]:
    status: dict[str, object] = {"value": child.status}
    if child.failed:
        status |= {"failed": True, "exit_code": 1}
    return {"id": child.name, "object": "model", "owned_by": "llamacpp", "status": status}


async def models(request: web.Request) -> web.Response:
    """List the models and how far they are."""
    rows = [_row(child) for child in request.app[ROUTER].children.values()]
    return json_response({"object": "list", "data": rows})


async def _named(request: web.Request) -> str:
    name = (await read_json(request)).get("model")
    if not isinstance(name, str) or name not in request.app[ROUTER].children:
        raise Refused(404, f"model {name!r} not found")
    return name


async def load(request: web.Request) -> web.Response:
    """Begin to load a model."""
    name, fake = await _named(request), request.app[FAKE]
    await strike(fake.faults, "wake")
    if not fake.faults.fires("wake_200_still_asleep"):
        router = request.app[ROUTER]
        if router.children[name].status == "unloaded" and router.children[name].change is None:
            router.load(name)
    return json_response({"success": True})


async def unload(request: web.Request) -> web.Response:
    """Begin to unload a model."""
    name, fake = await _named(request), request.app[FAKE]
    await strike(fake.faults, "sleep")
    if not fake.faults.fires("sleep_200_awake"):
        request.app[ROUTER].unload(name)
    return json_response({"success": True})
