#!/opt/llmswap/bin/python
"""Stand-in for Tempo: takes spans over OTLP/HTTP on 4318, gives traces by id on 3200, keeps them on its disk.

`-health` asks the running one whether it is ready, as the real binary does.
"""

import gzip
import json
import sqlite3
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REMOVED_IN_3 = {"ingester", "compactor"}


class Store:
    """Spans by trace, in a file."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(folder / "standin.sqlite", check_same_thread=False)
        self._db.execute("CREATE TABLE IF NOT EXISTS spans (trace TEXT, resource TEXT, span TEXT)")
        self._db.execute("CREATE INDEX IF NOT EXISTS by_trace ON spans (trace)")

    def add(self, request: ExportTraceServiceRequest) -> None:
        """Keep what came in one request."""
        rows = []
        for resource in request.resource_spans:
            about = json.dumps(MessageToDict(resource.resource))
            for scope in resource.scope_spans:
                rows += [(span.trace_id.hex(), about, json.dumps(MessageToDict(span))) for span in scope.spans]
        with self._lock, self._db:
            self._db.executemany("INSERT INTO spans VALUES (?, ?, ?)", rows)

    def trace(self, trace: str) -> list[dict[str, object]]:
        """Give a trace as Tempo's batches; empty if unknown."""
        with self._lock:
            rows = self._db.execute("SELECT resource, span FROM spans WHERE trace = ?", (trace,)).fetchall()
        return [{"resource": json.loads(about), "scopeSpans": [{"spans": [json.loads(span)]}]} for about, span in rows]


class Handler(BaseHTTPRequestHandler):
    """What both ports have in common."""

    store: Store

    def say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *args: object) -> None:
        pass


class Otlp(Handler):
    """Port 4318."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path != "/v1/traces":
            self.say(404, b"{}")
            return
        self.store.add(ExportTraceServiceRequest.FromString(body))
        self.say(200, b"", "application/x-protobuf")


class Query(Handler):
    """Port 3200."""

    def do_GET(self) -> None:
        start, _, trace = self.path.rpartition("/")
        if self.path == "/ready":
            self.say(200, b"ready\n", "text/plain")
        elif self.path == "/metrics":
            self.say(200, b"tempo_build_info 1\n", "text/plain")
        elif start != "/api/traces":
            self.say(404, b"{}")
        elif batches := self.store.trace(trace.lower().zfill(32)):
            self.say(200, json.dumps({"batches": batches}).encode())
        else:
            self.say(404, b'{"message": "trace not found"}')


def main() -> None:
    """Read the config as far as it concerns us, and serve."""
    if sys.argv[1:] == ["-health"]:
        urllib.request.urlopen("http://127.0.0.1:3200/ready", timeout=4).close()
        return
    (path,) = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("-config.file=")]
    config = yaml.safe_load(Path(path).read_text())
    if gone := REMOVED_IN_3 & config.keys():
        sys.exit(f"{path}: Tempo 3 does not know {sorted(gone)}")
    if config["usage_report"]["reporting_enabled"] is not False:
        sys.exit(f"{path}: usage reports are on")
    folder = Path(config["storage"]["trace"]["local"]["path"]).parent
    Handler.store = Store(folder)
    print(f"stand-in for Tempo: traces are kept in {folder}", flush=True)
    otlp = ThreadingHTTPServer(("", 4318), Otlp)
    threading.Thread(target=otlp.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("", config["server"]["http_listen_port"]), Query).serve_forever()


if __name__ == "__main__":
    main()
