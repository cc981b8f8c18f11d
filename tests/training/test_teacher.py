"""A teacher that reads the candidates again: what it drops, what it turns into a positive, and what it keeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from ranker.config import ConfigError, Experiment
from ranker.pretrained import ModelNotFoundError
from ranker.schemas import GROUPS
from ranker.training import teacher as module
from ranker.training.miner import HardNegativeMiner
from ranker.training.mining import mine


@pytest.fixture(scope="module")
def with_teacher(built: Experiment, tiny_reranker: str) -> Experiment:
    """The talk with a random cross-encoder as the teacher; better than the right answer is too good."""
    teacher = {"model": tiny_reranker, "num_workers": 1, "scoring": {"precision": "fp32"}}
    return built.with_overrides({"mine.relative_margin": 0.0, "mine.num_dev_queries": 0, "mine.teacher": teacher})


@pytest.fixture(autouse=True)
def read_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher reads without actors, but for the test that is about them."""

    def scored(parts: Any, tasks: Any, config: Experiment, cluster: Any) -> Any:
        actor = module.ScorePairs(config.mine.teacher.model, config.mine.teacher.scoring, 1)
        for task in tasks:
            rows = pa.Table.from_pylist([{"file": str(parts[task.part]), **task._asdict()}])
            (row,) = actor(rows).to_pylist()
            yield row["part"], row["start"], np.asarray(row["logits"], dtype=np.float32)

    if "actors" not in request.node.name:
        monkeypatch.setattr(module, "_scored", scored)


def taught(config: Experiment, folder: Path, **changes: Any) -> tuple[list[dict[str, Any]], pa.Table, dict[str, Any]]:
    """Groups, NEGATIVES and the outcome."""
    overrides = {f"mine.{name.replace('__', '.')}": value for name, value in changes.items()}
    done = mine(config.with_overrides({**overrides, "mine.output_dir": str(folder)}))
    groups, negatives = (pq.read_table(done.folder / f"{name}.parquet") for name in ("groups", "negatives"))
    assert groups.schema.names == [*GROUPS.names, "scores"]
    return groups.to_pylist(), negatives, done.outcome


def logits(model: str, groups: list[dict[str, Any]]) -> list[float]:
    scorer = CrossEncoder(model, device="cpu")
    pairs = [(group["query"], document) for group in groups for document in group["documents"]]
    return [float(x) for x in scorer.predict(pairs, activation_fn=lambda scores: scores)]


def test_what_the_teacher_takes_for_relevant_is_dropped_as_the_peer_does(
    with_teacher: Experiment, talk: Any, tiny_reranker: str, tiny_retriever: str, tmp_path: Path
) -> None:
    groups, _, outcome = taught(with_teacher, tmp_path / "mine")
    documents, queries, answers = talk
    rows = [(query, text) for query, known in zip(queries, answers, strict=True) for text in known]
    data = Dataset.from_dict({"query": [q for q, _ in rows], "positive": [d for _, d in rows]})
    encoders = SentenceTransformer(tiny_retriever, device="cpu"), CrossEncoder(tiny_reranker, device="cpu")
    peer = mine_hard_negatives(
        data, encoders[0], corpus=documents, cross_encoder=encoders[1], relative_margin=0.0, num_negatives=3,
        output_format="labeled-list", verbose=False,
    )  # fmt: skip
    expected = {row["query"]: wrong_of(row["positive"], row["labels"]) for row in peer}
    ours = {group["query"]: wrong_of(group["documents"], group["labels"]) for group in groups}
    assert ours == expected and len(ours) > 5
    assert outcome["removed"]["relative_margin"] > 0


def wrong_of(texts: list[str], labels: list[float]) -> list[str]:
    return [text for text, label in zip(texts, labels, strict=True) if not label]


def test_actors_give_the_same(with_teacher: Experiment, tiny_reranker: str, tmp_path: Path) -> None:
    groups, _, _ = taught(with_teacher, tmp_path / "mine")
    stored = [score for group in groups for score in group["scores"]]
    np.testing.assert_allclose(stored, logits(tiny_reranker, groups), atol=1e-4)


def test_relabelled_ones_become_positives_and_every_document_carries_the_teachers_logit(
    with_teacher: Experiment, tiny_reranker: str, tmp_path: Path
) -> None:
    dropped, _, _ = taught(with_teacher, tmp_path / "drop")
    groups, negatives, outcome = taught(
        with_teacher, tmp_path / "relabel", teacher__action="relabel", random_ratio=0.34
    )
    assert outcome["relabelled"] == int(pa.compute.sum(pa.compute.greater(negatives["label"], 0)).as_py()) > 0
    assert sum(map(len, (g["labels"] for g in groups))) > sum(map(len, (g["labels"] for g in dropped)))
    stored = [score for group in groups for score in group["scores"]]
    np.testing.assert_allclose(stored, logits(tiny_reranker, groups), atol=1e-4)
    for group in groups:
        ends = [score for score, label in zip(group["scores"], group["labels"], strict=True) if label]
        assert group["labels"] == sorted(group["labels"], reverse=True) and len(ends) >= 1


def test_scoring_alone_changes_no_choice(with_teacher: Experiment, tiny_reranker: str, tmp_path: Path) -> None:
    groups, negatives, _ = taught(with_teacher, tmp_path / "score", teacher__action="score")
    without = mine(
        with_teacher.with_overrides({"mine.teacher.model": None, "mine.output_dir": str(tmp_path / "without")})
    )
    plain = pq.read_table(without.folder / "groups.parquet")
    assert plain.schema.metadata[b"scores"] == b"retriever"
    first = plain["query_id"][0].as_py()
    listed = pq.read_table(without.folder / "negatives.parquet").filter(pa.compute.field("query_id") == first)
    assert set(np.round(listed["score"], 5)) <= set(np.round(plain["scores"][0].as_py(), 5))
    assert [group["documents"] for group in groups] == plain["documents"].to_pylist()
    np.testing.assert_allclose(
        [score for group in groups for score in group["scores"]], logits(tiny_reranker, groups), atol=1e-4
    )
    assert negatives["teacher"].null_count == 0


def test_a_call_that_was_stopped_scores_only_what_is_missing(
    with_teacher: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through, _, _ = taught(with_teacher, tmp_path / "through")
    monkeypatch.setattr(module, "TASK_PAIRS", 10)
    scored, asked = module._scored, []

    def stops(parts: Any, tasks: Any, config: Any, cluster: Any) -> Any:
        asked.append(len(tasks))
        for number, found in enumerate(scored(parts, tasks, config, cluster)):
            if len(asked) == 1 and number == 2:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(module, "_scored", stops)
    with pytest.raises(KeyboardInterrupt):
        taught(with_teacher, tmp_path / "mine")
    groups, _, _ = taught(with_teacher, tmp_path / "mine")
    assert asked[0] > 3 and asked[1] == asked[0] - 2
    assert [group["documents"] for group in groups] == [group["documents"] for group in through]


def test_a_teacher_that_cannot_decide_or_is_not_there_is_named_first(with_teacher: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'drop' needs max_score, absolute_margin or relative_margin"):
        with_teacher.with_overrides({"mine.relative_margin": None})
    with pytest.raises(ModelNotFoundError, match="nobody"):
        mine(with_teacher.with_overrides({"mine.teacher.model": str(tmp_path / "nobody")}))


def test_a_drawn_document_that_the_teacher_takes_for_relevant_is_left_out(
    with_teacher: Experiment, tmp_path: Path
) -> None:
    groups, negatives, outcome = taught(with_teacher, tmp_path / "mine", random_ratio=1.0, num_negatives=12)
    assert outcome["drawn_at_random"] == negatives.num_rows > 12
    for group in groups:
        likely = [score for score, label in zip(group["scores"], group["labels"], strict=True) if label]
        assert max(s for s, label in zip(group["scores"], group["labels"], strict=True) if not label) <= min(likely)


def test_in_memory_the_teachers_logits_come_along(
    talk: Any, tiny_retriever: str, tiny_reranker: str, encode_here: Any, ray_cluster: Any
) -> None:
    documents, queries, answers = talk
    teacher = {"model": tiny_reranker, "action": "score", "num_workers": 1}
    miner = HardNegativeMiner(tiny_retriever, num_workers=1, relative_margin=None, teacher=teacher)
    found = miner.mine(queries[:2], documents, 3, positives=answers[:2])
    groups = [{"query": row["query"], "documents": row["negatives"]} for row in found]
    stored = [score for row in found for score in row["teacher_scores"]]
    np.testing.assert_allclose(stored, logits(tiny_reranker, groups), atol=1e-4)
