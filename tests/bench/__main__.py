"""`python -m tests.bench`: measure the promised figures, print a table, write JSON.

`--only cpu` runs one section; `--contender 'name=command with {port} and {upstream}'` measures something else in
llmswap's place (the CPU and stream sections only).
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench import contenders, program, simulator, sleeping, telemetry
from tests.bench.contenders import Served
from tests.bench.figures import CHUNK, FLAT_OUT, PACED, REQUESTS_PER_S, Row, cpu_per_unit, cpu_rows, stream_rows

SECTIONS = ("cpu", "chunks", "streams", "swaps", "sleep", "start", "hostile", "refusals", "simulator", "telemetry")
CPU = (
    ("cpu", FLAT_OUT, "CPU per request, 2 KB in, 0.6 KB out, 16 connections", 8.0),
    ("cpu", PACED, f"CPU per request, the same paced at {REQUESTS_PER_S}/s", None),
    ("chunks", CHUNK, "CPU per streamed chunk", 2.5),
)
RSS_BOUND_MB = 100.0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the promised figures.")
    parser.add_argument("--quick", action="store_true", help="a short look: fewer rounds, streams held for 10 s")
    parser.add_argument("--rounds", type=int, help="rounds whose median is taken (default 5, quick 3)")
    parser.add_argument("--hold-s", type=float, help="how long the streams are held (default 60, quick 10)")
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="run this section only; repeatable")
    parser.add_argument("--contender", metavar="NAME=COMMAND", help="measure this instead of llmswap")
    parser.add_argument("--json", type=Path, default=Path("bench-results/bench.json"), help="default: %(default)s")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bound is not kept")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 5)
    args.hold_s = args.hold_s or (10.0 if args.quick else 60.0)
    args.only = args.only or (SECTIONS[:3] if args.contender else SECTIONS)
    return args


def subject(args: argparse.Namespace, directory: Path, upstream_port: int) -> Served:
    """Give what is measured: llmswap, or the contender."""
    if not args.contender:
        return contenders.llmswap(directory, contenders.one_model(upstream_port))
    name, _, command = args.contender.partition("=")
    return contenders.by_command(name, command, directory, upstream_port)


def data_plane(args: argparse.Namespace, directory: Path) -> list[Row]:
    """Measure what a request, a chunk and many streams cost."""
    rows = []
    with ExitStack() as stack:
        upstream = stack.enter_context(contenders.upstream(directory))
        ours = stack.enter_context(subject(args, directory, upstream.port))
        everyone = [
            stack.enter_context(contenders.nginx(directory, upstream.port)),
            stack.enter_context(contenders.nginx(directory, upstream.port, tuned=True)),
            stack.enter_context(contenders.relay(directory, upstream.port)),
            ours,
        ]
        for section, kind, title, bound in CPU:
            if section in args.only:
                say(title)
                rows += cpu_rows(title, cpu_per_unit(everyone, args.rounds, kind, args.quick), ours.name, bound)
        if "streams" in args.only:
            say(f"{args.streams} streams held for {args.hold_s:.0f} s")
            rows += stream_rows(ours, upstream, args.streams, args.hold_s)
        rows.append(Row(f"RSS of {ours.name} throughout", ours.rss_mb, "MB", RSS_BOUND_MB))
    return rows


def say(text: str) -> None:
    """Tell what is being measured."""
    print(f"... {text}", file=sys.stderr, flush=True)


def table(rows: list[Row]) -> str:
    """Lay the rows out for reading."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        bound = "" if row.bound is None else f"<= {row.bound:g}"
        verdict = "" if row.bound is None else ("pass" if row.passed else "FAIL")
        lines.append(f"{row.name:{width}}  {row.value:9.2f} {row.unit:3} {bound:8} {verdict:5} {row.note}".rstrip())
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    args = parse()
    began_s = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="llmswap-bench-") as name:
        directory = Path(name)
        if set(args.only) & {"cpu", "chunks", "streams"}:
            rows += data_plane(args, directory)
        for section, measure in (
            *program.SECTIONS.items(),
            *sleeping.SECTIONS.items(),
            *simulator.SECTIONS.items(),
            *telemetry.SECTIONS.items(),
        ):
            if section in args.only:
                say(section)
                rows += measure(directory, args.quick)
    print(table(rows))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "took_s": round(time.monotonic() - began_s, 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rows": [row.as_dict() for row in rows],
    }
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {args.json}", file=sys.stderr)
    failed = [row.name for row in rows if not row.passed]
    return 1 if failed and args.strict else 0


if __name__ == "__main__":
    sys.exit(main())
