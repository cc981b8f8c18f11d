import re

import numpy as np
import pytest

from ranker.evaluation import compare_runs
from ranker.evaluation.changes import most_changed
from ranker.evaluation.findings import Report, excerpt, reproduce
from ranker.evaluation.plots import MAX_BARS, change_plot
from ranker.evaluation.report import write_report

FACTS = {
    "experiment": "letters <1>", "collection": "letters", "num_queries": 3, "num_documents": 4, "depth": 3,
    "model": "model", "interpolation": 0.0,
}  # fmt: skip
SPEED = {
    "pairs": 9, "pairs_per_second": 90.0, "workers": 1, "rerank_latency_ms": 12.5,
    "retrieval_ms_per_query": {"retriever": 1.5},
}  # fmt: skip


@pytest.fixture
def report(letters, first, after) -> Report:
    runs = {"retriever": first, "reranked": after}
    comparison = compare_runs(runs, letters.qrels, ["mrr@10", "ndcg@10"])
    return Report(FACTS, comparison, SPEED, runs, letters, {"ranker": "0.1.0"})


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
    assert not re.search(r'(src|href|srcset)=(?!"data:)', page)
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
    write_report(tmp_path, Report(FACTS, compare_runs(runs, judged, ["mrr@10"]), SPEED, runs, letters, {}))
    assert "<b>1.0000</b><sup>a</sup>" in (tmp_path / "report.html").read_text()
    assert "**1.0000** a" in (tmp_path / "report.md").read_text()
    swapped = {"retriever": runs["reranked"], "reranked": runs["retriever"]}
    write_report(tmp_path, Report(FACTS, compare_runs(swapped, judged, ["mrr@10"]), SPEED, swapped, letters, {}))
    assert "0.5000<sup class=worse>&minus;a</sup>" in (tmp_path / "report.html").read_text()


def test_markdown_has_the_table_the_plot_and_the_commands(report, tmp_path) -> None:
    write_report(tmp_path, report)
    page = (tmp_path / "report.md").read_text()
    assert "| reranked | **0.6667** |" in page
    assert "](change.png)" in page
    assert "+0.500** first letter" in page and "- 2 → 1: **relevant 1** A alpha (`a`)" in page
    assert (
        "ir_measures qrels.trec runs/reranked.trec 'RR@10' 'nDCG@10'" in reproduce(report) and reproduce(report) in page
    )


def test_excerpts_end_at_a_word() -> None:
    assert excerpt("a\n b") == "a b"
    assert excerpt("word " * 100).endswith("word …") and len(excerpt("word " * 100)) <= 242


@pytest.mark.parametrize("size", [1, 2, MAX_BARS, MAX_BARS + 1, 3000])
@pytest.mark.parametrize("dark", [False, True])
def test_any_number_of_queries_makes_a_picture(size, dark) -> None:
    change = np.random.default_rng(0).normal(0.1, 0.2, size) if size > 1 else np.zeros(1)
    assert change_plot(change, "ndcg@10", "retriever", "reranked", dark=dark).startswith(b"\x89PNG")
