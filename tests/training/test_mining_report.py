from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from markdown_it import MarkdownIt

from ranker.config import Experiment
from ranker.schemas import CORPUS, QRELS, QUERIES, Collection
from ranker.training.candidates import Pool
from ranker.training.choosing import Choice, Chosen
from ranker.training.known import judged
from ranker.training.mining_examples import plain, sample_queries
from ranker.training.mining_plot import Panel, bin_edges, score_plot, shares
from ranker.training.mining_report import Scored, measured, write_report

NASTY = "a | b ``code`` <b>bold</b> *star* __init__ [link](http://x.y) ![i](j) &lt; ~~no~~ $x$ \\ end #"
TEXTS = ["dog barks", "cat purrs", NASTY, "cow\n\nmoos | loud", "hen clucks", "owl hoots"]
NAN = float("nan")


def collection(name: str = "pets", query: str = "who barks") -> Collection:
    """Six documents, three queries; documents 0, 1 and 4 are the right answers, 3 is a wrong one of the first."""
    return Collection(
        name,
        "train",
        pa.table([[f"d{i}" for i in range(6)], [""] * 6, TEXTS], schema=CORPUS),
        pa.table([["q0", "q1", "q2"], [query, "who purrs", "who clucks"]], schema=QUERIES),
        pa.table([["q0", "q1", "q2", "q0"], ["d0", "d1", "d4", "d3"], [1, 1, 1, 0]], schema=QRELS),
    )


def choice(negatives: Sequence[int], similarities: Sequence[float], ranks: Sequence[int], **rest: Any) -> Choice:
    values = {"relabelled": [], "removed": [], "logits": {}} | rest
    return Choice(list(negatives), list(similarities), list(ranks), **values)


def chosen_of(train: Collection, *choices: Choice) -> Chosen:
    """Similarities of the right answers are 0.8, 0.2 and 0.5."""
    nothing: Any = None
    pool = Pool(["q0", "q1", "q2"], nothing, judged(train), [[0.8], [0.2], [0.5]], Path(), nothing, {})
    return Chosen(pool, list(choices), {}, 0)


CHOICES = (
    choice([2, 3], [0.6, 0.4], [2, 4], removed=[(4, 0.79, "relative_margin")]),
    choice([5, 3], [0.3, NAN], [1, 0]),
    choice([], [], []),
)
OUTCOME: dict[str, Any] = {
    "queries": 3, "negatives": 4, "queries_by_negatives": {0: 1, 2: 2}, "drawn_at_random": 1, "relabelled": 0,
    "candidates": 20, "removed": {"copy_of_positive": 1, "positive": 3, "near_duplicate": 0, "relative_margin": 5},
    "groups": 2,
}  # fmt: skip
MINE: dict[str, Any] = {"num_negatives": 2}
TEACHER = {"model": "some/teacher", "action": "drop"}


def page_of(
    folder: Path, train: Collection, chosen: Chosen, outcome: dict[str, Any] = OUTCOME, **mine: Any
) -> list[str]:
    write_report(folder, train, chosen, outcome, Experiment(mine=MINE | mine))
    assert sorted(file.name for file in folder.iterdir()) == ["report.md", "scores.png"]
    return (folder / "report.md").read_text("utf-8").splitlines()


def shown(markdown: str) -> list[list[str]]:
    """Rows of the tables and headings as a reader sees them; anything but text in them fails."""
    rows: list[list[str]] = []
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    for before, token in pairwise(tokens):
        rows += [[]] if before.type in ("tr_open", "heading_open") else []
        if token.type == "inline" and before.type in ("th_open", "td_open", "heading_open"):
            assert {child.type for child in token.children or []} <= {"text", "code_inline"}
            rows[-1].append("".join(child.content for child in token.children or []))
    return [row for row in rows if row]


def test_the_page_counts_what_happened(tmp_path: Path) -> None:
    lines = page_of(tmp_path, collection(), chosen_of(collection(), *CHOICES))
    assert lines[0] == "# Hard negatives of pets"
    assert lines[2] == (
        "For each of 3 train queries up to 6 candidates of different texts came from the vector index "
        "(`sentence-transformers/all-MiniLM-L6-v2`). Filters in force: `near_duplicates` 0.8, `relative_margin` 0.05. "
        "There was no teacher. Of those that passed, the best 2 became negatives."
    )
    assert "| 0 | 1 | 33.3% |" in lines and "| 2 | 2 | 66.7% |" in lines
    assert "4 negatives in 2 training groups. Drawn at random from the corpus: 1." in lines
    assert any(line.startswith("20 candidates were looked at.") for line in lines)
    assert "| `copy_of_positive` | the text of a right answer | 1 | 5.0% |" in lines
    assert "| `positive` | a right answer itself | 3 | 15.0% |" in lines
    assert "| `relative_margin` | similarity above 95% of that of the lowest right answer | 5 | 25.0% |" in lines
    assert any(line.startswith("| `near_duplicate` |") and line.endswith("| 0 | 0.0% |") for line in lines)
    assert "| similarity of right answers | 3 | 0.230 | 0.500 | 0.770 |" in lines
    assert "| similarity of negatives | 3 | 0.310 | 0.400 | 0.580 |" in lines
    assert "![distribution of the scores](scores.png)" in lines


def test_an_example_lists_answers_negatives_and_what_was_removed(tmp_path: Path) -> None:
    rows = shown("\n".join(page_of(tmp_path, collection(), chosen_of(collection(), *CHOICES))))
    start = rows.index(["who barks (q0)"])
    assert rows[start + 1 : start + 6] == [
        ["", "similarity", "rank", "doc_id", "text"],
        ["right", "0.800", "", "d0", "dog barks"],
        ["negative", "0.600", "2", "d2", NASTY],
        ["negative, judged", "0.400", "4", "d3", "cow moos | loud"],
        ["removed: relative_margin", "0.790", "", "d4", "hen clucks"],
    ]
    assert ["negative", "", "random", "d3", "cow moos | loud"] in rows
    assert not any("who clucks" in cell for row in rows for cell in row)  # it got no negative


def test_names_and_queries_with_markdown_in_them_stay_as_they_are(tmp_path: Path) -> None:
    nasty = f"# {NASTY}\n- point"
    train = collection(name="my_pets_*v2*", query=nasty)
    rows = shown("\n".join(page_of(tmp_path, train, chosen_of(train, *CHOICES))))
    assert rows[0] == ["Hard negatives of my_pets_*v2*"]
    assert [f"# {NASTY} - point (q0)"] in rows


@pytest.mark.parametrize("text", [NASTY, "`", "\\|", "a & b &amp; &#38; &", "1. x", "***", "<!-- c -->", "|" * 30])
def test_plain_text_is_read_letter_by_letter_in_a_table(text: str) -> None:
    assert shown(f"| h | i |\n| --- | --- |\n| {plain(text)} | x |") == [["h", "i"], [text, "x"]]


def test_long_texts_are_cut_at_a_blank_or_where_there_is_none() -> None:
    assert plain("abcd " * 60) == "abcd " * 39 + "abcd …"
    assert plain("犬" * 300) == "犬" * 200 + " …"
    assert plain("a\tb\r\n\u2028c\x00") == "a b c\N{REPLACEMENT CHARACTER}"


def test_a_teacher_shows_its_probabilities_and_the_answers_it_found(tmp_path: Path) -> None:
    choices = (
        choice([2], [0.6], [3], relabelled=[4], removed=[(4, 0.79, "max_score")], logits={0: 2.0, 4: 3.0, 2: 0.0}),
        choice([3], [0.3], [1], logits={1: -3.0, 3: 0.0}),
        choice([5], [0.1], [1], logits={4: 3.0, 5: -3.0}),
    )
    outcome = OUTCOME | {"relabelled": 1, "queries_by_negatives": {1: 3}, "removed": {"max_score": 1}}
    teacher = TEACHER | {"action": "relabel"}
    limits = {"max_score": 0.9, "relative_margin": None, "num_negatives": 1, "near_duplicates": None}
    chosen = chosen_of(collection(), *choices)
    lines = page_of(tmp_path, collection(), chosen, outcome, teacher=teacher, **limits)
    said = "\n".join(lines)
    assert "what a margin or `max_score` removed became a right answer" in said
    assert "Made right answers by the teacher: 1." in said
    assert "| `max_score` | probability above 0.9 | 1 | 5.0% |" in lines
    # sigmoid of -3, 0, 2 and 3: 0.047, 0.5, 0.881 and 0.953
    assert "| probability of right answers that the teacher found | 1 | 0.953 | 0.953 | 0.953 |" in lines
    assert "| probability of negatives | 3 | 0.093 | 0.500 | 0.500 |" in lines
    rows = shown(said)
    start = rows.index(["who barks (q0)"])
    assert rows[start + 1 : start + 5] == [
        ["", "similarity", "rank", "probability", "doc_id", "text"],
        ["right", "0.800", "", "0.881", "d0", "dog barks"],
        ["right, found by the teacher", "0.790", "", "0.953", "d4", "hen clucks"],
        ["negative", "0.600", "3", "0.500", "d2", NASTY],
    ]
    assert (
        "- Queries whose best right answer has a lower probability than half of their negatives: 1 (33.3%). The labels "
        "or the teacher may be wrong there." in lines
    )


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        ({"relative_margin": None}, "There was no teacher."),
        ({"candidates": ["bm25", "my.run"]}, "came from BM25 and the run `my.run`, in turn."),
        ({"near_duplicates": None, "relative_margin": None}, "Filters in force: only the judgements."),
        ({"teacher": TEACHER | {"action": "score"}}, "only scored what was chosen; the filters read similarities."),
        ({"teacher": TEACHER}, "what a margin or `max_score` removed was left out."),
        (
            {"range_min": 3, "range_max": 40, "sampling_strategy": "random", "random_ratio": 0.5},
            "1 drawn with seed 13 of the first 40, the best 3 skipped, and 1 drawn from the whole corpus,",
        ),
    ],
)
def test_the_paragraph_says_what_was_set(tmp_path: Path, mine: dict[str, Any], said: str) -> None:
    outcome = OUTCOME | {"removed": {"positive": 3}}
    assert said in page_of(tmp_path, collection(), chosen_of(collection(), *CHOICES), outcome, **mine)[2]


def test_hints_name_what_to_loosen_and_what_to_doubt(tmp_path: Path) -> None:
    lines = page_of(tmp_path, collection(), chosen_of(collection(), *CHOICES))
    hints = [line for line in lines if line.startswith("- ")]
    assert hints == [
        "- Queries with fewer than 2 negatives: 1 (33.3%). `relative_margin` removed most candidates (5): lower "
        "`mine.relative_margin`, or raise `mine.range_max` to look further down the lists.",
        "- Queries whose best right answer has a lower similarity than half of their negatives: 1 (50.0%). The labels "
        "or the retriever may be wrong there.",
    ]


def test_without_anything_to_say_there_are_no_hints(tmp_path: Path) -> None:
    good = [choice([5, 3], [0.1, 0.1], [1, 2])] * 3
    outcome = OUTCOME | {"queries_by_negatives": {2: 3}}
    assert "## To look at" not in page_of(tmp_path, collection(), chosen_of(collection(), *good), outcome)


def test_lists_that_are_too_short_are_to_be_made_longer(tmp_path: Path) -> None:
    outcome = OUTCOME | {"removed": {"positive": 3}}
    lines = page_of(tmp_path, collection(), chosen_of(collection(), *CHOICES), outcome)
    assert any("No filter removed candidates: raise `mine.range_max`" in line for line in lines)


def test_right_answers_are_compared_with_the_median_of_known_similarities() -> None:
    chosen = chosen_of(
        collection(),
        choice([1, 2, 3], [0.9, 0.7, NAN], [1, 2, 0]),  # 0.8 is not below 0.8
        choice([2, 3, 5], [0.9, 0.3, 0.1], [1, 2, 3]),  # 0.2 is below 0.3
        choice([1], [NAN], [0]),
    )
    similar = measured(chosen, Experiment().mine)[0]
    assert (similar.compared, similar.doubtful) == (2, 1)
    assert sorted(similar.wrong.tolist()) == [0.1, 0.3, 0.7, 0.9, 0.9] and similar.right.tolist() == [0.8, 0.2, 0.5]
    assert Scored.of("similarity", [], np.zeros(0)).compared == 0


def test_examples_are_a_seeded_sample_of_those_with_negatives() -> None:
    some = [choice([1], [0.1], [1]) if row % 2 else choice([], [], []) for row in range(100)]
    chosen = chosen_of(collection(), *some)
    sample = sample_queries(chosen, 20, seed=1)
    assert len(set(sample)) == 20 and sample == sorted(sample) and all(row % 2 for row in sample)
    assert sample == sample_queries(chosen, 20, seed=1) != sample_queries(chosen, 20, seed=2)
    assert len(sample_queries(chosen, 80, seed=1)) == 50


def test_of_many_right_answers_some_are_shown(tmp_path: Path) -> None:
    train = Collection(
        "pets", "train",
        pa.table([[f"d{i}" for i in range(9)], [""] * 9, ["text"] * 9], schema=CORPUS),
        pa.table([["q0"], ["who"]], schema=QUERIES),
        pa.table([["q0"] * 8, [f"d{i}" for i in range(8)], [1] * 8], schema=QRELS),
    )  # fmt: skip
    nothing: Any = None
    pool = Pool(["q0"], nothing, judged(train), [[0.5] * 8], Path(), nothing, {})
    lines = page_of(tmp_path, train, Chosen(pool, [choice([8], [0.4], [1])]))
    assert sum(line.startswith("| right |") for line in lines) == 5
    assert "3 more right answers are not shown." in lines


def test_bars_are_shares_of_each_kind_and_hold_everything() -> None:
    panel = Panel("", "", np.array([0.2, 0.2, 0.6]), np.array([0.0, 1.0]))
    edges = bin_edges(panel)
    assert edges.tolist() == np.linspace(0, 1, 11).tolist()
    assert shares(panel.right, edges)[2] == pytest.approx(200 / 3)
    assert shares(panel.right, edges).sum() == pytest.approx(100)
    assert shares(panel.wrong, edges)[[0, -1]].tolist() == [50, 50]
    assert shares(np.zeros(0), edges).sum() == 0
    many = np.linspace(0, 1, 144)
    assert len(bin_edges(Panel("", "", many, many))) == 25
    assert len(bin_edges(Panel("", "", np.repeat(many, 9), np.repeat(many, 9)))) == 41


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5], [-1.0, 1.0]])
def test_any_scores_make_a_picture(scores: list[float]) -> None:
    panel = Panel("title", "label", np.array(scores), np.zeros(0))
    assert score_plot([panel]).startswith(b"\x89PNG")
    assert score_plot([panel, panel._replace(limits=(0.0, 1.0))]) != score_plot([panel])
