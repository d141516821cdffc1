"""The HTTP side put together: routes by persona, the middleware that journals every call, start and stop."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress

from aiohttp import web

from llmswap.fake_upstream import control, grandchild, llamacpp, llamacpp_router, openai, sglang, vllm
from llmswap.fake_upstream.anthropic import Messages, count_tokens
from llmswap.fake_upstream.chat import Chat, Completions
from llmswap.fake_upstream.engine import BootFailed, Engine, Phase, Refused
from llmswap.fake_upstream.errors import error_response
from llmswap.fake_upstream.exposition import metrics
from llmswap.fake_upstream.faults import Faults
from llmswap.fake_upstream.health import health
from llmswap.fake_upstream.journal import Call, Journal
from llmswap.fake_upstream.knobs import Knobs
from llmswap.fake_upstream.ledger import Holder, Ledger
from llmswap.fake_upstream.options import Options
from llmswap.fake_upstream.responses import Responses
from llmswap.fake_upstream.say import say
from llmswap.fake_upstream.serve import Cut, text_api
from llmswap.fake_upstream.state import BODY_MAX, CALL, FAKE, Fake

CUT_AFTER_S = 0.01  # requests in flight at the end are cut; 0 would mean to aiohttp: wait for them for ever
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build(options: Options, knobs: Knobs, faults: Faults, ledger: Ledger | None) -> web.Application:
    """Build the application. Nothing runs yet."""
    app = web.Application(middlewares=[_journalled], client_max_size=BODY_MAX)
    journal = Journal(time.monotonic())
    app[FAKE] = Fake(options, knobs, faults, Engine(options, knobs, faults, ledger, journal), journal)
    _add_routes(app, options)
    add = app.router.add_route
    control.add_routes(app)
    add("*", "/{tail:.*}", control.echo if options.persona == "generic" else _not_found)
    app.on_response_prepare.append(_echo_request_id)
    return app


def _add_routes(app: web.Application, options: Options) -> None:
    """Add the persona's routes, its own before those that all share."""
    add = app.router.add_route
    if options.persona == "vllm":
        vllm.add_routes(app)
    elif options.persona == "sglang":
        sglang.add_routes(app)
    elif options.persona == "llamacpp":
        llamacpp.add_routes(app)
    if options.router:
        llamacpp_router.add_routes(app)
    if options.persona != "sglang":
        add("GET", "/health", health)
        add("*", "/ping", health)
    add("GET", "/metrics", metrics)
    add("GET", "/v1/models", llamacpp_router.models if options.router else openai.models)
    add("POST", "/v1/chat/completions", text_api(Chat))
    add("POST", "/v1/completions", text_api(Completions))
    add("POST", "/v1/responses", text_api(Responses))
    add("POST", "/v1/messages", text_api(Messages))
    add("POST", "/v1/messages/count_tokens", count_tokens)
    add("POST", "/v1/embeddings", openai.embeddings)
    for path in ("/rerank", "/v1/rerank"):
        add("POST", path, openai.rerank)
    add("POST", "/v1/audio/transcriptions", openai.transcriptions)
    add("POST", "/v1/audio/speech", openai.speech)


async def _not_found(request: web.Request) -> web.StreamResponse:
    raise Refused(404, "File Not Found" if request.app[FAKE].options.persona == "llamacpp" else "Not Found")


async def _echo_request_id(request: web.Request, response: web.StreamResponse) -> None:
    if "X-Request-Id" in request.headers:
        response.headers["X-Request-Id"] = request.headers["X-Request-Id"]


def runner_of(app: web.Application) -> web.AppRunner:
    """Give what serves the application: a client that leaves ends its request, bodies stay as they are on the wire."""
    return web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=CUT_AFTER_S, auto_decompress=False
    )


@web.middleware
async def _journalled(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Journal a call, keep the loading gate, turn refusals into the persona's errors."""
    if request.path.startswith("/_fake/"):
        return await handler(request)
    fake = request.app[FAKE]
    call = request[CALL] = fake.journal.note(_call(request, fake.engine))
    persona = fake.options.persona
    try:
        if _is_loading(fake) and request.path not in ("/health", "/v1/health"):
            response: web.StreamResponse = error_response(persona, request.path, 503, "Loading model")
        else:
            async with fake.attend(request) if fake.attend else nullcontext():
                response = await handler(request)
    except Refused as refused:
        response = error_response(persona, request.path, refused.status, str(refused))
    except Cut:
        call.outcome, call.ended_s = "cut", fake.engine.age_s()
        raise asyncio.CancelledError from None
    except (ConnectionError, asyncio.CancelledError):
        call.outcome, call.ended_s = "client_gone", fake.engine.age_s()
        raise asyncio.CancelledError from None
    except web.HTTPException as error:
        call.outcome, call.status, call.ended_s = "done", error.status, fake.engine.age_s()
        raise
    call.outcome, call.status, call.ended_s = "done", response.status, fake.engine.age_s()
    return response


def _is_loading(fake: Fake) -> bool:
    """Whether a server that listens before it can serve says so. SGLang's takes requests while it warms up."""
    return fake.engine.phase is Phase.BOOTING and fake.options.persona != "sglang"


def _call(request: web.Request, engine: Engine) -> Call:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return Call(
        at_s=engine.age_s(),
        method=request.method,
        path=request.raw_path,
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers],
        peer=peer[1] if peer else 0,
        phase=str(engine.phase),
        running=engine.running,
        waiting=engine.queued,
    )


async def serve(options: Options, knobs: Knobs, faults: Faults) -> int:
    """Run one life of the server and give its exit code."""
    orphan = faults.fires("orphan_grandchild")
    workers = grandchild.Workers(len(options.gpus) if options.workers else 0)
    holders = workers.pids or [grandchild.spawn(orphan.word("plain")) if orphan else os.getpid()] * len(options.gpus)
    ledger = None
    if options.ledger is not None:
        lag_s = options.gpu_release_lag_s * knobs.time_scale
        holder = Holder(options.models[0], dict(zip(options.gpus, holders, strict=True)))
        ledger = Ledger(options.ledger, options.gpu_total_gib, lag_s, holder)
    app = build(options, knobs, faults, ledger)
    fake, stop = app[FAKE], asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, number, fake, stop)
    say("Started server process [%d]", os.getpid())
    runner = runner_of(app)
    life = asyncio.create_task(_live(fake, runner), name="life")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({life, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            return life.result()
        slow = faults.fires("slow_stop")
        say("Shutting down")
        fake.closing = True
        if options.persona == "sglang":
            await fake.engine.idle.wait()  # it drains; the others cut what is in flight
        for site in tuple(runner.sites):
            await site.stop()
        await fake.engine.spend(slow.number() if slow else knobs.sigterm_delay_s)
        return 0
    finally:
        for task in (life, stopped):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if not orphan or workers.pids:
            fake.engine.hold_gpu(0.0)
        workers.end()
        await runner.cleanup()


def _on_signal(number: signal.Signals, fake: Fake, stop: asyncio.Event) -> None:
    if number is signal.SIGTERM and fake.faults.fires("ignore_sigterm"):
        return
    if stop.is_set() and fake.options.persona == "llamacpp":
        os._exit(1)  # llama-server's answer to a second signal
    stop.set()


async def _live(fake: Fake, runner: web.AppRunner) -> int:
    """Bind, boot and serve until cancelled; an exit code if that ends by itself."""
    options = fake.options
    if fake.faults.fires("port_in_use"):
        say("ERROR: [Errno 98] Address already in use")
        return 1
    await runner.setup()
    try:
        listener = socket.create_server((options.host, options.port), reuse_port=False)
    except OSError as error:
        say("ERROR: cannot listen on %s:%d: %s", options.host, options.port, error)
        return 1
    site = web.SockSite(runner, listener, backlog=1024)
    late = options.persona in ("vllm", "sglang")
    if not late:
        await _listen(site, listener)
    crash = fake.faults.fires("crash_after")
    try:
        async with asyncio.timeout(crash.number() * fake.knobs.time_scale if crash else None):
            await _boot(fake, site, listener, late=late)
            await asyncio.Event().wait()
    except BootFailed as error:
        say("ERROR: EngineCore failed to start.\nTraceback (most recent call last):\nRuntimeError: %s", error)
    except TimeoutError:
        say("ERROR: simulated crash\nTraceback (most recent call last):\nRuntimeError: crash_after")
    return 1


async def _boot(fake: Fake, site: web.SockSite, listener: socket.socket, *, late: bool) -> None:
    """Boot; vLLM listens after it, SGLang before a warm-up at the end."""
    if fake.options.persona == "sglang":
        with fake.engine.operation("boot"):
            await fake.engine.load()
            await _listen(site, listener)
            await fake.engine.spend(fake.knobs.prefill_ms(1) / 1000)
            fake.engine.rise()
        say("The server is fired up and ready to roll!")
        return
    await fake.engine.boot()
    if late:
        await _listen(site, listener)


async def _listen(site: web.SockSite, listener: socket.socket) -> None:
    await site.start()
    say("Uvicorn running on http://%s:%d (Press CTRL+C to quit)", *listener.getsockname()[:2])
