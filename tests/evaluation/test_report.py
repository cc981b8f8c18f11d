import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ranker.evaluation import compare_runs
from ranker.evaluation.changes import most_changed
from ranker.evaluation.findings import Report, excerpt, pictures, reproduce
from ranker.evaluation.pictures import SERIES, as_png, as_svg
from ranker.evaluation.plots import MAX_BARS, change_picture, depth_picture, latency_picture
from ranker.evaluation.report import write_report

FACTS = {
    "experiment": "letters <1>", "collection": "letters", "num_queries": 3, "num_documents": 4, "depth": 3,
    "model": "model", "interpolation": 0.0,
}  # fmt: skip


def reranker(system: str, depth: int, p50: float) -> dict:
    return {
        "system": system, "model": "model", "depth": depth, "pairs_per_second": 90.0, "p50_ms": p50, "p95_ms": 2 * p50,
        "timed_queries": 20,
    }  # fmt: skip


SPEED = {
    "pairs": 9, "pairs_per_second": 90.0, "workers": 1, "engine_busy": 0.97, "rerank_latency_ms": 12.5,
    "retrieval_ms_per_query": {"retriever": 1.5}, "rerankers": [reranker("reranked", 3, 12.5)],
}  # fmt: skip


@pytest.fixture
def report(letters, first, after) -> Report:
    runs = {"retriever": first, "reranked": after}
    comparison = compare_runs(runs, letters.qrels, ["mrr@10", "ndcg@10"])
    return Report(FACTS, comparison, runs, letters.qrels, letters, SPEED, {"ranker": "0.1.0"})


def test_the_most_changed_queries_tell_which_documents_moved(report) -> None:
    gains, losses = most_changed(report.comparison, report.runs, report.collection.qrels, collection=report.collection)
    assert [(change.query_id, change.before, change.after) for change in gains] == [("q1", 0.5, 1.0)]
    assert [change.query_id for change in losses] == ["q2"]
    moves = {move.doc_id: (move.before, move.after, move.relevance) for move in gains[0].moves}
    assert moves == {"a": (2, 1, 1), "b": (1, 2, None), "c": (3, 3, None)}
    assert gains[0].moves[0].text == "A alpha"


def test_a_document_that_was_not_in_the_list_has_no_rank(letters, ranked) -> None:
    runs = {"retriever": ranked(q1="b c"), "reranked": ranked(q1="a b")}
    gains, _ = most_changed(compare_runs(runs, letters.qrels, ["mrr@10"]), runs, letters.qrels)
    assert gains[0].moves[0].before is None and gains[0].moves[0].after == 1


def test_the_page_stands_alone_and_escapes_what_it_shows(report, tmp_path) -> None:
    write_report(tmp_path, report)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r'(src|href|srcset)=(?!"#)', page) and "url(" not in page.replace("url(#", "")
    assert "://" not in page and "@import" not in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert "letters &lt;1&gt;" in page and "second &amp; letter" in page and "<b> " not in page
    assert "<td><b>0.6667</b></td>" in page  # the best of a measure


def test_significant_changes_carry_the_letter_of_the_baseline(letters, ranked, tmp_path) -> None:
    queries = [f"q{number}" for number in range(12)]
    runs = {"retriever": ranked(**dict.fromkeys(queries, "b a")), "reranked": ranked(**dict.fromkeys(queries, "a b"))}
    qrels = letters.qrels.slice(0, 1).to_pandas()
    judged = type(letters.qrels).from_pandas(
        qrels.loc[qrels.index.repeat(12)].assign(query_id=queries), schema=letters.qrels.schema, preserve_index=False
    )
    found = compare_runs(runs, judged, ["mrr@10"])
    write_report(tmp_path, Report(FACTS, found, runs, judged, letters, SPEED, {}))
    assert "<b>1.0000</b><sup>a</sup>" in (tmp_path / "report.html").read_text()
    assert "| **1.0000** a |" in (tmp_path / "report.md").read_text()
    swapped = {"retriever": runs["reranked"], "reranked": runs["retriever"]}
    found = compare_runs(swapped, judged, ["mrr@10"])
    write_report(tmp_path, Report(FACTS, found, swapped, judged, letters, SPEED, {}))
    assert "<b>1.0000</b><sup>b</sup>" in (tmp_path / "report.html").read_text()  # the retriever beats the other


def test_markdown_has_the_table_the_plot_and_the_commands(report, tmp_path) -> None:
    write_report(tmp_path, report)
    page = (tmp_path / "report.md").read_text()
    assert "| reranked (b) | **0.6667** |" in page
    assert "](change.png)" in page
    assert "+0.500** first letter" in page and "- 2 → 1: **relevant 1** A alpha (`a`)" in page
    assert (
        "ir_measures qrels.trec runs/reranked.trec 'RR@10' 'nDCG@10'" in reproduce(report) and reproduce(report) in page
    )


def test_the_commands_name_the_files_as_they_are_called(letters, first, after) -> None:
    runs = {"my run (old)": first, "it's": after}
    report = Report(FACTS, compare_runs(runs, letters.qrels, ["map"]), runs, letters.qrels, letters, SPEED, {})
    assert "ranker compare runs/my%20run%20%28old%29.trec runs/it%27s.trec --qrels qrels.trec" in reproduce(report)


def test_excerpts_end_at_a_word() -> None:
    assert excerpt("a\n b") == "a b"
    assert excerpt("word " * 100).endswith("word …") and len(excerpt("word " * 100)) <= 242


@pytest.mark.parametrize("size", [1, 2, MAX_BARS, MAX_BARS + 1, 3000])
def test_any_number_of_queries_makes_a_picture(size) -> None:
    change = np.random.default_rng(0).normal(0.1, 0.2, size) if size > 1 else np.zeros(1)
    draw = change_picture(change, "ndcg@10")
    assert as_png(draw).startswith(b"\x89PNG")
    assert "var(--text)" in as_svg(draw, "change") and "#0102" not in as_svg(draw, "change")


def many(letters, first, after) -> Report:
    """Two models at two depths."""
    runs = {"retriever": first, "reranked@2": after, "small": first, "small@2": after, "reranked": after}
    comparison = compare_runs(runs, letters.qrels, ["mrr@10", "ndcg@10"], pairs="all")
    times = [("reranked", 3, 120.0), ("reranked@2", 2, 60.0), ("small", 3, 12.0), ("small@2", 2, 6.0)]
    speed = {**SPEED, "rerankers": [reranker(*each) for each in times]}
    return Report({**FACTS, "depths": [3, 2]}, comparison, runs, letters.qrels, letters, speed, {})


def test_depths_and_times_get_pictures_and_a_table(letters, first, after, tmp_path) -> None:
    report = many(letters, first, after)
    assert [picture.name for picture in pictures(report)] == ["change.png", "depth.png", "latency.png"]
    write_report(tmp_path, report)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "Quality by depth" in page and "Quality against latency" in page
    assert "| small@2 | 2 | 90.0 | 6.0 | 12.0 | 20 |" in text
    assert all((tmp_path / picture.name).read_bytes().startswith(b"\x89PNG") for picture in pictures(report))
    # Ids of one SVG are not those of another, which would borrow its shapes.
    ids = re.findall(r' id="([^"]+)"', page)
    shared = {name for name in ids if ids.count(name) > 1 and re.search(rf"#{re.escape(name)}[\")]", page)}
    assert not shared


def test_more_models_than_colours_are_all_drawn() -> None:
    names = [f"model {number}" for number in range(len(SERIES) + 2)]
    depth = depth_picture({name: [(1, 0.5), (2, 0.6)] for name in names}, ("bm25", 0.4), "map")
    latency = latency_picture({name: [(5.0, 0.5, "top 1")] for name in names}, "map")
    for draw in (depth, latency):
        drawn = as_svg(draw, "picture")
        assert all(name in drawn for name in names)


FOUND = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
CHROMIUM = next((path for path in FOUND if path), None)
PROBE = """
<iframe id=page style="width:{width}px;height:4000px;border:0" srcdoc="{page}"></iframe>
<script>
page.onload = () => {{
  const view = page.contentWindow, root = page.contentDocument.documentElement;
  const size = e => e.getBoundingClientRect();
  const shown = selector => [...root.querySelectorAll(selector)].filter(e => size(e).width > 0).length;
  const heights = [...root.querySelectorAll("svg text")].map(e => size(e).height).filter(h => h > 0);
  document.body.dataset.seen = JSON.stringify({{
    wide: shown(".wide"), narrow: shown(".narrow"), overflow: root.scrollWidth - root.clientWidth,
    paper: view.getComputedStyle(root.querySelector("body")).backgroundColor, height: root.scrollHeight,
    label: view.getComputedStyle(root.querySelector("svg text")).fill, smallest: Math.min(...heights),
  }});
}};
</script>
"""


def looked_at(page: str, folder: Path, *, width: int, dark: bool) -> dict:
    """What headless Chromium says of the page at this width."""
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(width=width, page=html.escape(page, quote=True)))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", scheme,
        "--virtual-time-budget=5000", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', found)[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_on_a_phone_and_on_a_desk_light_and_dark(letters, first, after, tmp_path) -> None:
    write_report(tmp_path, many(letters, first, after))
    page = (tmp_path / "report.html").read_text()
    phone = looked_at(page, tmp_path, width=360, dark=False)
    assert (phone["wide"], phone["narrow"], phone["overflow"]) == (0, 3, 0), phone
    assert phone["smallest"] >= 8, phone  # pixels: letters of the pictures can be read
    desk = looked_at(page, tmp_path, width=1000, dark=True)
    assert (desk["wide"], desk["narrow"], desk["overflow"]) == (3, 0, 0), desk
    assert phone["paper"] == "rgb(255, 255, 255)" and desk["paper"] == "rgb(23, 27, 34)"
    assert phone["label"] != desk["label"]
    assert 1000 < desk["height"] < 6000
