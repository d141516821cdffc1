"""The score card as one HTML page that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STYLE = """
body{font:14px/1.45 system-ui,sans-serif;color:#222;max-width:1140px;margin:24px auto;padding:0 16px}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:28px 0 8px}p{margin:4px 0}
table{border-collapse:collapse;margin:4px 0}
td,th{padding:3px 10px;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}th{font-weight:600;background:#f6f6f6}
.pass{color:#00704f}.FAIL,.differ{color:#b00020;font-weight:600}.unseen{color:#777;font-style:italic}
.verdict{font-size:18px;font-weight:600;margin:10px 0}svg{max-width:100%;height:auto}code{font-size:12px}
"""
NOT_SEEN = "not seen"


def page(card: dict[str, Any], picture: str) -> str:
    """Write the page of a run."""
    run = card["run"]
    verdict = "passed" if card["verdict"]["passed"] else "FAILED"
    settings = {
        "target": f"{run['target']} ({run['kind']})",
        "policy": run["policy"] or "the target's own",
        "seed": run["seed"],
        "callers": run["callers"],
        "scenario minutes": f"{run['minutes']:.3g}",
        "time scale": f"{run['time_scale']:g} real seconds for one",
        "when": run["when"],
    }
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(run['scenario'])}: {verdict}</title>",
        f"<style>{STYLE}</style><h1>{escape(run['scenario'])}</h1><p>{escape(run['about'])}</p>",
        f"<p class='verdict {'pass' if card['verdict']['passed'] else 'FAIL'}'>{verdict}</p>",
        "".join(f"<p class='FAIL'>{escape(reason)}</p>" for reason in card["verdict"]["reasons"]),
        "<p>" + " · ".join(f"{escape(key)}: {escape(str(value))}" for key, value in settings.items()) + "</p>",
        "<p>Times are seconds of the scenario, unless they are in ms, which are real.</p>",
        _section("Score", ("", "value"), _score(card)),
        _section("Thresholds", ("figure", "least", "most", "is", ""), _thresholds(card)),
        f"<h2>What the models did</h2>{picture}{_blind(card)}",
        *(_section(title, _TIMES_HEAD, _times(card, part)) for title, part in _PARTS.items()),
        _section("Failures", ("kind", "requests"), sorted(card["failures"].items()) or [("none", "")]),
        _section("Counted twice", ("", "by us", "by the target", "may differ by", ""), _checks(card)),
        _section("Slowest requests", _SLOW_HEAD, _slowest(card)),
        "</html>\n",
    ]
    return "\n".join(parts)


_PARTS = {"By model": "models", "By caller": "callers"}
_TIMES_HEAD = (
    *("", "asked", "done", "gave up", "failed", "hits", "misses"),
    *("wait p50", "p95", "worst", "hit p95", "miss p95", "TTFT p50", "p95", "worst", "hit p95", "miss p95"),
)
_SLOW_HEAD = ("at", "caller", "model", "ending", "took", "waited", "swap", "model was", "trace")


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, _Html):
        return value
    if isinstance(value, float):
        return number(value)
    return "-" if value is None else escape(str(value))


def number(value: float) -> str:
    """Write a number with as many digits as mean anything."""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def seen(card: dict[str, Any], name: str, value: object) -> object:
    """Give a figure's value; where it is not there, why."""
    if value is not None:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    parts = name.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    why = next((card["unseen"][each] for each in names if each in card["unseen"]), "")
    return _Html(f"<span class='unseen' title='{escape(why, quote=True)}'>{NOT_SEEN}</span>") if why else None


def _score(card: dict[str, Any]) -> list[tuple[str, object]]:
    share, lost = card["failed_share"], card["gpu_lost"]
    rows: list[tuple[str, object]] = [
        ("answers", card["done"]),
        ("answers per hour", card["done_per_h"]),
        ("requests (further tries included)", card["asked"]),
        ("gave up", card["gave_up"]),
        ("left in mid-stream", card["left"]),
        ("refused", card["refused"]),
        ("failed or cut off", card["failed"] + card["cut"]),
        ("failures", None if share is None else f"{100 * share:.2g} %"),
        ("swaps", seen(card, "swaps", card["swaps"])),
        ("swaps per hour", seen(card, "swaps_per_h", card["swaps_per_h"])),
        ("of them wakes", seen(card, "wakes", card["wakes"])),
        ("requests that waited for a swap", seen(card, "joined", card["joined"])),
        ("GPU time lost to swapping", seen(card, "gpu_lost", None if lost is None else f"{100 * lost:.1f} %")),
        ("GPU seconds lost", seen(card, "gpu_lost_s", card["gpu_lost_s"])),
        ("mean gap within a stream, ms", card["stream"]["gap_mean_ms"]),
        ("longest gap of a stream, p99, ms", card["stream"]["gap_longest_p99_ms"]),
        ("refusals, p99, ms", card["refusal_p99_ms"]),
        ("the generator's timers were late by, p99, ms", card["generator"]["lag_p99_ms"]),
    ]
    for name, title in (("wait", "wait"), ("ttft", "time to the first token")):
        for key in ("p50_s", "p95_s", "worst_s"):
            value = None if card[name] is None else card[name][key]
            rows.append((f"{title}, {key.removesuffix('_s')}", seen(card, f"{name}.{key}", value)))
    return rows


def _thresholds(card: dict[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (row["figure"], row["least"], row["most"], row["value"], _Html(f"<span class='{row['verdict']}' "
         f"title='{escape(row['why'], quote=True)}'>{row['verdict']}</span>"))
        for row in card["thresholds"]
    ]  # fmt: skip
    needed = card["verdict"]["samples_needed"]
    verdict = "pass" if card["ended"] >= needed else "FAIL"
    return [*rows, ("ended", needed, None, card["ended"], _Html(f"<span class='{verdict}'>{verdict}</span>"))]


def _blind(card: dict[str, Any]) -> str:
    blind, every_s = card["residency"]["blind"], card["residency"]["every_s"]
    if blind:
        return f"<p class='unseen'>No lanes: {escape(blind)}.</p>"
    return f"<p>States as /running says every {every_s:.2g} s; what is shorter may be missing.</p>"


def _times(card: dict[str, Any], part: str) -> list[list[object]]:
    rows = []
    for name, own in card[part].items():
        row: list[object] = [name, own["asked"], own["done"], own["gave_up"], own["failed"]]
        row += [seen(card, "wait", own["hits"]), seen(card, "wait", own["misses"])]
        for kind in ("wait", "ttft"):
            for path in ("p50_s", "p95_s", "worst_s", "hit.p95_s", "miss.p95_s"):
                value = own[kind]
                for key in path.split("."):
                    value = None if value is None else value[key]
                row.append(seen(card, f"{part}.{name}.{kind}.{path}", value))
        rows.append(row)
    return rows


def _checks(card: dict[str, Any]) -> list[tuple[object, ...]]:
    if not card["checks"]:
        return [(_Html(f"<span class='unseen'>{escape(card['run']['kind'])} counts nothing of it</span>"),)]
    return [
        (
            check["name"] + (", real s" if check["unit"] else ""),
            *(float(check[key]) for key in ("ours", "theirs", "slack")),
            _Html(f"<span class='{check['verdict']}'>{check['verdict']}</span>"),
        )
        for check in card["checks"]
    ]


def _slowest(card: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            float(row["at_s"]), row["caller"], row["model"], row["ending"], float(row["e2e_s"]),
            seen(card, "wait", row["wait_s"]), seen(card, "wait", row["swap_s"]), row["residency"],
            _Html(f"<code>{row['trace']}</code>") if row["trace"] else "not traced",
        )
        for row in card["slowest"]
    ]  # fmt: skip
