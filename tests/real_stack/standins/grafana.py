#!/opt/llmswap/bin/python
"""Stand-in for Grafana: reads what is provisioned as Grafana would at start, fails on what Grafana would refuse.

Serves `/api/health`, `/api/datasources` and `/api/search` (uid and title of each dashboard), the last two to the admin
only, with the password from the file that `GF_SECURITY_ADMIN_PASSWORD__FILE` names.
"""

import base64
import hmac
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

PROVISIONING = Path("/etc/grafana/provisioning")
KNOWN_TYPES = {"prometheus", "tempo", "alertmanager", "loki"}


def documents(kind: str) -> list[tuple[Path, dict[str, Any]]]:
    """Read every file of a kind of provisioning."""
    found = []
    for path in sorted((PROVISIONING / kind).glob("*.y*ml")):
        content = yaml.safe_load(path.read_text()) or {}
        if content.get("apiVersion") != 1:
            sys.exit(f"{path}: apiVersion must be 1")
        found.append((path, content))
    return found


def datasources() -> list[dict[str, Any]]:
    """Check the data sources: known types, unique names and uids, at most one default."""
    rows = [(path, row) for path, content in documents("datasources") for row in content.get("datasources") or ()]
    for path, row in rows:
        for key in ("name", "type", "uid", "url"):
            if not row.get(key):
                sys.exit(f"{path}: a data source lacks {key}: {row}")
        if row["type"] not in KNOWN_TYPES:
            sys.exit(f"{path}: unknown type of data source {row['type']!r}")
    for key in ("name", "uid"):
        values = [row[key] for _, row in rows]
        if len(set(values)) != len(values):
            sys.exit(f"data sources share a {key}: {values}")
    if sum(bool(row.get("isDefault")) for _, row in rows) > 1:
        sys.exit("more than one data source is the default")
    return [row for _, row in rows]


def dashboards(known: set[str]) -> list[dict[str, Any]]:
    """Check the dashboards of every provider: JSON, unique uids and titles, data sources that are there."""
    found: dict[str, dict[str, Any]] = {}
    titles: set[str] = set()
    for path, content in documents("dashboards"):
        for provider in content.get("providers") or ():
            folder = Path((provider.get("options") or {}).get("path", "/nowhere"))
            if provider.get("type", "file") != "file" or not folder.is_dir():
                sys.exit(f"{path}: provider {provider.get('name')!r} has no folder {folder}")
            for file in sorted(folder.rglob("*.json")):
                board = json.loads(file.read_text())
                uid, title = board.get("uid"), board.get("title")
                if not uid or not title or uid in found or title in titles:
                    sys.exit(f"{file}: uid {uid!r} or title {title!r} is missing or used twice")
                for used in references(board):
                    if used not in known and not used.startswith(("$", "-- ", "grafana")):
                        sys.exit(f"{file}: data source {used!r} is not provisioned")
                found[uid] = {"uid": uid, "title": title}
                titles.add(title)
    return list(found.values())


def references(node: Any) -> set[str]:
    """Find the uid of every data source that a dashboard names."""
    if isinstance(node, list):
        return set().union(*map(references, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    named = node.get("datasource")
    own = {named["uid"]} if isinstance(named, dict) and named.get("uid") else set()
    return own.union(*(references(value) for value in node.values()))


def password() -> str:
    """Read the admin's password; there is none by default."""
    text = Path(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]).read_text().strip()
    if len(text) < 16:
        sys.exit("the admin's password is missing or short")
    return text


def handler(tables: dict[str, Any], secret: str) -> type[BaseHTTPRequestHandler]:
    """Make the class that answers."""
    wanted = b"Basic " + base64.b64encode(f"admin:{secret}".encode())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "").encode()
            if self.path == "/api/health":
                self._say(200, {"database": "ok", "version": "stand-in"})
            elif self.path == "/metrics":
                self._say(200, "grafana_build_info 1\n")
            elif not hmac.compare_digest(given, wanted):
                self._say(401, {"message": "Unauthorized"})
            elif self.path in tables:
                self._say(200, tables[self.path])
            else:
                self._say(404, {"message": "Not found"})

        def _say(self, status: int, content: Any) -> None:
            plain = isinstance(content, str)
            body = content.encode() if plain else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if plain else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, form: str, *args: Any) -> None:
            pass

    return Handler


def main() -> None:
    """Read, check, serve."""
    sources = datasources()
    boards = dashboards({row["uid"] for row in sources})
    print(f"stand-in for Grafana: {len(sources)} data sources, {len(boards)} dashboards")
    tables = {"/api/datasources": sources, "/api/search": boards}
    ThreadingHTTPServer(("", 3000), handler(tables, password())).serve_forever()


if __name__ == "__main__":
    main()
