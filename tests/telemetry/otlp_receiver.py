"""Real OTLP receivers for tests: over HTTP and over gRPC, decoded with OpenTelemetry's own messages."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Received:
    """What came.

    Attributes:
        hangs: Take everything and never answer.
    """

    endpoint: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hangs: bool = False
    asked: int = 0

    def spans(self) -> list[Any]:
        return [span for _, span in self._spans()]

    def _spans(self):
        for request in self.requests:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    yield from ((resource.resource, span) for span in scope.spans)

    def resource(self) -> dict[str, str]:
        resource = next(self._spans())[0]
        return {entry.key: entry.value.string_value for entry in resource.attributes}

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans() if span.name == name]

    async def take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> ExportTraceServiceResponse:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        self.requests.append(request)
        self.headers.append(headers)
        return ExportTraceServiceResponse()


@asynccontextmanager
async def http_receiver() -> AsyncIterator[Received]:
    """Listen for OTLP over HTTP."""
    received = Received()

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        answer = await received.take(message, dict(request.headers))
        return web.Response(body=answer.SerializeToString(), content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        received.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield received
    finally:
        await runner.cleanup()


@asynccontextmanager
async def grpc_receiver() -> AsyncIterator[Received]:
    """Listen for OTLP over gRPC."""
    received = Received()

    class Service(service.TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:
            metadata = {key: str(value) for key, value in context.invocation_metadata()}
            return await received.take(request, metadata)

    server = grpc.aio.server()
    service.add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    received.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield received
    finally:
        await server.stop(0)
