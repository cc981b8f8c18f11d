import numpy as np
import pytest

from ranker.data.stored import open_collection, save_collection
from ranker.evaluation.lists import top_of
from ranker.evaluation.tasks import cut, missing_tasks, open_tasks, read_scores, score_task, write_tasks
from ranker.schemas import StoredCorpus


class Counting:
    """Scores a pair by the lengths of its texts, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs) -> np.ndarray:
        self.asked += pairs
        return np.array([100 * len(query) + len(document) for query, document in pairs], dtype=np.float32)


def test_tasks_hold_whole_queries_and_the_texts_that_a_model_reads(letters, first, tmp_path) -> None:
    tasks = write_tasks(top_of(first, 3), letters, tmp_path, pairs_per_task=5)
    assert tasks.edges == (0, 6, 9) and len(tasks) == 2 and tasks.num_pairs == 9
    assert tasks.of_task(1) == [
        ("third letter", "A alpha"), ("third letter", "D delta"), ("third letter", "C gamma <b>"),
    ]  # fmt: skip


def test_a_corpus_on_the_disk_gives_the_same_and_is_never_whole_in_memory(
    letters, first, tmp_path, monkeypatch
) -> None:
    save_collection(tmp_path / "data", letters.corpus, letters.queries, {"test": letters.qrels})
    stored = open_collection(tmp_path / "data", "test")
    expected = write_tasks(top_of(first, 3), letters, tmp_path / "one").of_task(0)
    for name in ("table", "lookup"):
        monkeypatch.setattr(StoredCorpus, name, None)
    assert write_tasks(top_of(first, 3), stored, tmp_path / "two").of_task(0) == expected


def test_scored_tasks_stay_and_only_the_others_are_scored(letters, first, tmp_path) -> None:
    tasks = write_tasks(top_of(first, 3), letters, tmp_path, pairs_per_task=2)
    scores = tmp_path / "scores"
    scores.mkdir()
    score_task(Counting(), tasks, 1, scores)
    assert missing_tasks(tasks, scores) == [0, 2]
    later = Counting()
    for number in missing_tasks(open_tasks(tmp_path), scores):
        score_task(later, tasks, number, scores)
    assert {query for query, _ in later.asked} == {"first letter", "third letter"}
    assert read_scores(tasks, scores).tolist() == Counting().score(tasks.pairs(0, 9)).tolist()


def test_a_task_that_fails_leaves_no_file_that_looks_whole(letters, first, tmp_path) -> None:
    tasks = write_tasks(top_of(first, 3), letters, tmp_path)

    class Broken:
        def score(self, pairs) -> np.ndarray:
            raise FloatingPointError("pair 0 got the logit nan")

    with pytest.raises(FloatingPointError):
        score_task(Broken(), tasks, 0, tmp_path)
    assert missing_tasks(tasks, tmp_path) == [0]


def test_tasks_do_not_depend_on_the_workers(first) -> None:
    assert cut(top_of(first, 3)["query_id"], 1) == [0, 3, 6, 9]
    assert cut(top_of(first, 3)["query_id"], 100) == [0, 9]
    assert cut(top_of(first, 3)["query_id"].slice(0, 0), 5) == [0]


def test_ids_of_other_collections_are_refused(letters, ranked, tmp_path) -> None:
    with pytest.raises(ValueError, match="1 doc_ids of it are not in the collection: 'zebra'"):
        write_tasks(top_of(ranked(q1="a zebra"), 2), letters, tmp_path / "a")
    with pytest.raises(ValueError, match="1 query_ids of it are not in the collection: 'q9'"):
        write_tasks(top_of(ranked(q9="a"), 2), letters, tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="not seen from this node"):
        open_tasks(tmp_path / "a")
