"""Reports: written, read back, compared, and put into a page of the documentation."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from loadtests import compare, gate, picture, report, scenario, score
from loadtests.picture import draw
from loadtests.samples import Ending
from loadtests.target import Kind, Lanes
from tests.loadtests.runs import RUN, lanes, sample, seen

NASTY = '<script>&"m'
LANES = lanes((0.0, {}), (1.0, {"m": "starting"}), (4.0, {"m": "ready"}), (30.0, {"m": "stopping"}), (31.0, {}))


def written(folder, *, policy="fair", kind=Kind.LLMSWAP, many=5, shown=LANES, model="m"):
    samples = [sample(call=n, at_s=1000.0 + 3 * n, model=model) for n in range(many)]
    samples.append(sample(Ending.GAVE_UP, call=90, at_s=1030.0, status=0, wait_s=None))
    card = gate.judge(score.card(seen(samples, kind, lanes=shown), RUN | {"policy": policy}), scenario.load("hit"))
    return report.write(folder, card, samples)


def svg(text):
    return ET.fromstring(re.search(r"(?s)<svg.*?</svg>", text).group())


def test_a_report_is_read_back_as_it_was_written(tmp_path):
    folder = written(tmp_path)
    back = report.read(folder)
    assert folder.name == "20261121-120000-hit-fair"
    assert (back.card["done"], len(back.samples), back.title) == (5, 6, "fair")
    assert json.loads((folder / "card.json").read_text()) == back.card


def test_a_folder_without_a_report_is_told_so(tmp_path):
    with pytest.raises(report.BadReportError, match="holds no report"):
        report.read(tmp_path)


def test_the_page_is_whole_and_nothing_of_it_is_taken_for_markup(tmp_path):
    page = (written(tmp_path, model=NASTY) / "report.html").read_text()
    assert "<script>" not in page
    assert svg(page).attrib["role"] == "img"
    for part in ("Thresholds", "What the models did", "By caller", "Counted twice", "Slowest requests"):
        assert f"<h2>{part}</h2>" in page


def test_the_page_marks_what_cannot_be_seen(tmp_path):
    blind = Lanes(0.1)
    blind.see(0.0, None)
    page = (written(tmp_path, kind=Kind.OPENAI, shown=blind) / "report.html").read_text()
    row = re.search(r"<tr><td>swaps</td><td>(.*?)</td>", page).group(1)
    assert "not seen" in row
    assert "the target has no /running" in row
    assert "No lanes: the target has no /running" in page


def test_a_model_serves_where_its_requests_were_and_waits_are_drawn_where_they_came():
    samples = [sample(at_s=1002.0, wait_s=3.0, e2e_s=13.0)]  # served from 50 to 150 s of the scenario
    card = score.card(seen(samples, lanes=LANES), RUN)
    panel = picture.panel(card, samples, 1000.0, "fair", "")
    spans = {doing: (from_s, to_s) for from_s, to_s, doing in panel.lanes["m"]}
    assert spans["serving"] == (pytest.approx(50.0), pytest.approx(150.0))
    assert spans["coming up"] == (pytest.approx(10.0), pytest.approx(40.0))
    assert spans["going"] == (pytest.approx(300.0), pytest.approx(310.0))
    (dot,) = panel.dots["m"]
    assert (dot.at_s, dot.wait_s, dot.served) == (pytest.approx(20.0), pytest.approx(30.0), True)
    drawn = svg(draw("hit", [panel]))
    titles = [title.text for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert {"coming up", "serving", "idle", "going"} <= set(titles)


def test_a_picture_does_not_grow_with_the_run():
    spans = [(0.1 * n, 0.1 * n + 0.05, "serving" if n % 2 else "idle") for n in range(20_000)]
    dots = [picture.Dot(0.1 * n, n % 50, served=True) for n in range(20_000)]
    assert len(draw("x", [picture.Panel("fair", "", 2000.0, {"m": spans}, {"m": dots}, "wait, s")])) < 400_000


def test_two_reports_are_laid_side_by_side(tmp_path, capsys):
    a, b = written(tmp_path, policy="fifo"), written(tmp_path, many=10)
    assert compare.show(a, b, tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert re.search(r"answers per hour +50 +100 +2.00", out)
    assert re.search(r"answers for agent +5 +10 +2.00", out)
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "A: fifo" in page
    assert len(list(svg(page).iter("{http://www.w3.org/2000/svg}rect"))) > 5


def test_what_only_one_of_two_targets_shows_is_not_seen_at_the_other(tmp_path, capsys):
    blind = Lanes(0.1)
    blind.see(0.0, None)
    b = written(tmp_path, policy="", kind=Kind.OPENAI, shown=blind)
    compare.show(written(tmp_path), b, tmp_path / "out")
    assert re.search(r"swaps +0 +not seen +-", capsys.readouterr().out)


def test_reports_that_are_hard_to_compare_are_said_to_be(tmp_path, capsys):
    a, b = written(tmp_path, policy="fifo"), written(tmp_path)
    card = json.loads((b / "card.json").read_text())
    card["run"]["seed"] = 2
    (b / "card.json").write_text(json.dumps(card))
    compare.show(a, b, tmp_path / "out")
    assert "note: they differ in seed: 1 and 2" in capsys.readouterr().out


def test_a_page_of_the_documentation_gets_the_card_between_its_marks(tmp_path):
    fifo, fair = (report.read(written(tmp_path, policy=policy)) for policy in ("fifo", "fair"))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{compare.BEGIN}\noutdated\n{compare.END}\nafter\n")
    compare.document(fifo, fair, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "outdated" not in text
    assert "| answers per hour | 50 | 50 | 1.00 |" in text
    assert "2026-11-21" in text
    assert svg((tmp_path / "pictures" / "hit.svg").read_text()) is not None
    compare.document(fifo, replace(fair), page)
    assert page.read_text() == text
