"""Candidates from every source, the same negatives as sentence-transformers end to end, and interruptions."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from ranker.config import Experiment
from ranker.manifest import StageError
from ranker.retrieval.index import build_index
from ranker.schemas import RUN, Collection, StoredCorpus
from ranker.training import candidates as module
from ranker.training.choosing import Chosen, choose
from ranker.training.miner import HardNegativeMiner


def peers(talk: Any, model: str, **settings: Any) -> dict[str, list[str]]:
    documents, queries, answers = talk
    rows = [(query, answer) for query, known in zip(queries, answers, strict=True) for answer in known]
    data = Dataset.from_dict({"query": [q for q, _ in rows], "positive": [d for _, d in rows]})
    found = mine_hard_negatives(
        data, SentenceTransformer(model, device="cpu"), corpus=documents, output_format="labeled-list", verbose=False,
        **settings,
    )  # fmt: skip
    return {
        row["query"]: [text for text, label in zip(row["positive"], row["labels"], strict=True) if not label]
        for row in found
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"num_negatives": 4},
        {"num_negatives": 3, "range_min": 2},
        {"num_negatives": 3, "relative_margin": 0.02},
        {"num_negatives": 3, "absolute_margin": 0.01, "range_min": 1},
        {"num_negatives": 2, "max_score": 0.97, "min_score": 0.5, "range_max": 25},
    ],
)
def test_the_same_settings_choose_the_negatives_of_sentence_transformers(
    settings: dict[str, Any], talk: Any, tiny_retriever: str, encode_here: Any, ray_cluster: Any, monkeypatch: Any
) -> None:
    # The peer computes in fp32, also where the processor has bf16.
    monkeypatch.setattr("ranker.retrieval.encoder.cpu_has_bf16", lambda: False)
    documents, queries, answers = talk
    ours = HardNegativeMiner(
        tiny_retriever,
        num_workers=1,
        **{"relative_margin": None, "near_duplicates": None, **settings, "num_negatives": 7},
    )
    found = ours.mine(queries, documents, settings["num_negatives"], positives=answers)
    expected = peers(talk, tiny_retriever, **settings)
    assert {row["query"]: row["negatives"] for row in found if row["negatives"]} == expected
    assert sum(map(len, expected.values())) > 8


def chosen(config: Experiment, work: Path, run: pa.Table | None = None, **mine: Any) -> Chosen:
    from ranker.data.stored import open_collection

    stored = open_collection(config.folder("data"), "train")
    train = Collection(stored.name, "train", StoredCorpus(config.folder("data") / "corpus"), stored.queries,
                       stored.qrels, run=run)  # fmt: skip
    work.mkdir(exist_ok=True)
    changed = config.with_overrides({f"mine.{name}": value for name, value in mine.items()})
    return choose(train, config.folder("index"), changed, work)


def negatives(found: Chosen) -> list[list[int]]:
    return [choice.negatives for choice in found.choices]


def test_blocks_of_any_size_give_the_same_negatives(
    built: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chosen(built, tmp_path / "whole")
    monkeypatch.setattr(module, "BLOCK_QUERIES", 5)
    cut = chosen(built, tmp_path / "cut")
    assert negatives(cut) == negatives(whole) and cut.dropped == whole.dropped
    assert len(list((tmp_path / "cut" / "candidates").iterdir())) == 3


def test_an_interrupted_search_goes_on_with_the_next_block(
    built: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_QUERIES", 5)
    search, calls = module.search_keys, []

    def stops_at_the_third(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return search(*arguments)

    monkeypatch.setattr(module, "search_keys", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        chosen(built, tmp_path / "work")
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "work" / "candidates").glob("block-*")}
    found = chosen(built, tmp_path / "work")
    assert kept and {file: file.stat().st_mtime_ns for file in kept} == kept
    assert negatives(found) == negatives(chosen(built, tmp_path / "through"))


def test_a_list_that_is_full_of_copies_is_looked_up_deeper(
    tiny_retriever: str, sentences: Any, encode_here: Any, ray_cluster: Any
) -> None:
    documents = ["dog barks at night"] * 40 + sentences(20)
    miner = HardNegativeMiner(tiny_retriever, num_workers=1, relative_margin=None, near_duplicates=None)
    found = miner.mine(["dog barks at night"], documents, 4, positives=["dog barks at night"])
    assert len(found[0]["negatives"]) == 4 and len(set(found[0]["negatives"])) == 4
    assert "dog barks at night" not in found[0]["negatives"]


def test_a_document_that_answers_a_query_with_the_same_text_is_no_negative(built: Experiment, tmp_path: Path) -> None:
    found = chosen(built, tmp_path / "work", num_negatives=30)
    known = found.pool.known
    assert set(known.answers[2]) == set(known.answers[7]) == {*known.positives[2], *known.positives[7]}
    assert not set(found.choices[2].negatives) & set(known.positives[7])
    assert found.positives(2) == known.positives[2], "and it is no positive of it either"


def test_near_duplicates_of_a_positive_are_left_out_and_counted(
    tiny_retriever: str, sentences: Any, encode_here: Any, ray_cluster: Any
) -> None:
    answer = "the dog sleeps in the house at night and runs in the garden by day while the cat purrs near the fish pond"
    documents = [answer, answer.upper() + "!", answer.replace("pond", "bird"), *sentences(12)]
    arguments = (["who sleeps in the house"], documents, 14)
    strict = HardNegativeMiner(tiny_retriever, num_workers=1, relative_margin=None)
    loose = HardNegativeMiner(tiny_retriever, num_workers=1, relative_margin=None, near_duplicates=0.97)
    exact = HardNegativeMiner(tiny_retriever, num_workers=1, relative_margin=None, near_duplicates=None)
    taken = [
        set(miner.mine(*arguments, positives=[answer])[0]["negatives"]) & set(documents[:3])
        for miner in (strict, loose, exact)
    ]
    assert taken == [set(), {documents[2]}, {documents[1], documents[2]}]


def run_of(rows: list[tuple[str, str]]) -> pa.Table:
    ranks: dict[str, int] = {}
    table = []
    for query_id, doc_id in rows:
        ranks[query_id] = ranks.get(query_id, 0) + 1
        table.append((query_id, doc_id, -float(ranks[query_id]), ranks[query_id]))
    return pa.table([list(column) for column in zip(*table, strict=True)], schema=RUN)


def test_candidates_of_a_run_keep_its_order_and_get_the_bi_encoders_similarity(
    built: Experiment, tmp_path: Path
) -> None:
    run = run_of([("q0", "d40"), ("q0", "d31"), ("q0", "d45"), ("q1", "d33"), ("elsewhere", "d1")])
    found = chosen(built, tmp_path / "work", run, candidates=["data"], num_negatives=2)
    answers = set(found.pool.known.answers[0])
    assert found.choices[0].negatives == [key for key in (40, 31, 45) if key not in answers][:2]
    vectors = found.pool.embeddings.rows(0, 60)[1]
    expected = [float(found.pool.vectors[0] @ vectors[key]) for key in found.choices[0].negatives]
    np.testing.assert_allclose(found.choices[0].similarities, expected, atol=1e-6)
    assert found.choices[2].negatives == []


def test_lists_take_turns_and_a_document_counts_where_it_comes_first() -> None:
    lists = [
        (np.array([[5, 2, 9], [1, -1, -1]]), np.array([[0.9, 0.8, 0.7], [0.5, -np.inf, -np.inf]], np.float32)),
        (np.array([[7, 5], [-1, -1]]), np.array([[0.1, 0.9], [-np.inf, -np.inf]], np.float32)),
    ]
    keys, scores, ranks = module._take_turns(lists)
    assert keys[:, :4].tolist() == [[5, 7, 2, 9], [1, -1, -1, -1]] and (keys[:, 4:] == -1).all()
    assert ranks[0, :4].tolist() == [1, 1, 2, 3]
    np.testing.assert_allclose(scores[0, :4], [0.9, 0.1, 0.8, 0.7])


def test_two_sources_both_give_negatives(built: Experiment, tmp_path: Path) -> None:
    alone = {name: chosen(built, tmp_path / name, candidates=[name], num_negatives=4) for name in ("index", "bm25")}
    both = chosen(built, tmp_path / "both", candidates=["index", "bm25"], num_negatives=4)
    only = {name: 0 for name in alone}
    for row, choice in enumerate(both.choices):
        found = {name: set(texts(both, alone[name].choices[row].negatives)) for name in alone}
        mixed = texts(both, choice.negatives)
        assert len(set(mixed)) == 4
        only["index"] += len(set(mixed) & found["index"] - found["bm25"])
        only["bm25"] += len(set(mixed) & found["bm25"] - found["index"])
    assert min(only.values()) > 5


def texts(found: Chosen, keys: list[int]) -> list[int]:
    return [int(found.pool.embeddings.hashes[key]) for key in keys]


def test_a_trec_run_of_another_corpus_and_a_missing_source_are_named(built: Experiment, tmp_path: Path) -> None:
    file = tmp_path / "other.trec"
    file.write_text("q0 Q0 nobody 1 2.0 x\nq0 Q0 d1 2 1.0 x\n")
    with pytest.raises(StageError, match=r"other\.trec.*1 documents that the corpus lacks, such as \['nobody'\]"):
        chosen(built, tmp_path / "a", candidates=[str(file)])
    with pytest.raises(StageError, match=r"mine\.candidates 'bm52': none of 'index', 'bm25', 'data'"):
        chosen(built, tmp_path / "b", candidates=["bm52"])
    with pytest.raises(StageError, match="brings no run"):
        chosen(built, tmp_path / "c", candidates=["data"])


@pytest.mark.parametrize("factory", ["HNSW16", "IVF2,Flat", "SQ8", "PQ4x2"])
def test_similarities_are_exact_whatever_the_index_keeps(factory: str, built: Experiment, tmp_path: Path) -> None:
    config = built.with_overrides({"index.factory": factory, "index.output_dir": str(tmp_path / "index")})
    build_index(config)
    found = chosen(config, tmp_path / "work", num_negatives=5)
    vectors = found.pool.embeddings.rows(0, 60)[1]
    for row, choice in enumerate(found.choices):
        assert choice.negatives
        np.testing.assert_allclose(choice.similarities, vectors[choice.negatives] @ found.pool.vectors[row], atol=1e-5)
        assert choice.similarities == sorted(choice.similarities, reverse=True)
