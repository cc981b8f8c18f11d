import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import ConfigError, Experiment
from ranker.data.catalog import prepare
from ranker.data.errors import DataError
from ranker.data.examples import as_groups
from ranker.manifest import Done, StageError
from ranker.retrieval.index import build_index
from ranker.schemas import GROUPS, QRELS
from ranker.training import choosing
from ranker.training import mining as module
from ranker.training.measure import has_dev
from ranker.training.miner import HardNegativeMiner
from ranker.training.mining import mine

DOCUMENTS = ["a dog barks", "a puppy barks", "a cat purrs", "a canary sings", "a parrot repeats words", "fish eats"]
QUERIES = ["which animal barks", "which bird sings"]


@pytest.fixture(scope="module")
def mined(pets: Path, tiny_retriever: str, tmp_path_factory: pytest.TempPathFactory, ray_cluster: Any) -> Experiment:
    """The three stages on the collection that fits on a screen."""
    config = Experiment(
        output_dir=str(tmp_path_factory.mktemp("mined")),
        data={"source": str(pets)},
        index={"model": tiny_retriever, "num_workers": 1},
        mine={"num_negatives": 3, "relative_margin": None, "num_dev_queries": 1, "dev_depth": 4},
    )
    prepare(config)
    build_index(config)
    return config


def table(done: Done, name: str) -> pa.Table:
    return pq.read_table(done.folder / f"{name}.parquet")


def test_every_train_query_becomes_a_group_of_its_positive_and_others(mined: Experiment) -> None:
    done = mine(mined)
    groups, negatives = table(done, "groups"), table(done, "negatives")
    assert groups.schema.names == [*GROUPS.names, "scores"] and groups.num_rows == 6
    first = groups.to_pylist()[0]
    assert first["query_id"] == "q1" and first["labels"] == [1, 0, 0, 0]
    assert first["documents"][0] == "Dogs A dog barks at strangers and guards the house."
    assert len(set(first["documents"])) == 4
    texts = {row["doc_id"]: f"{row['title']} {row['text']}".strip() for row in
             pq.read_table(mined.folder("data") / "corpus").to_pylist()}  # fmt: skip
    of_first = negatives.filter(pa.compute.equal(negatives["query_id"], "q1")).to_pylist()
    assert [texts[row["doc_id"]] for row in of_first] == first["documents"][1:]
    # The retriever's similarities of all of them, for distillation.
    assert first["scores"][1:] == pytest.approx([row["score"] for row in of_first], abs=1e-6)
    assert groups.schema.metadata == {b"scores": b"retriever"} and -1 <= first["scores"][0] <= 1.001
    assert [row["rank"] for row in of_first] == sorted(row["rank"] for row in of_first)
    assert done.outcome["queries_by_negatives"] == {"3": 6} and done.outcome["removed"]["positive"] == 6
    assert mine(mined).skipped


def test_dev_candidates_keep_ids_and_relevance(mined: Experiment) -> None:
    done = mine(mined)
    groups, qrels = table(done, "dev_groups"), table(done, "dev_qrels")
    assert groups.num_rows == 1 and qrels.schema.equals(QRELS)
    group = groups.to_pylist()[0]
    assert len(group["doc_ids"]) == len(group["documents"]) == len(group["labels"]) == 4
    judged = {row["doc_id"]: row["relevance"] for row in qrels.to_pylist() if row["query_id"] == group["query_id"]}
    assert judged and group["labels"] == [judged.get(doc_id, 0) for doc_id in group["doc_ids"]]


def test_other_settings_mine_again_and_a_sample_is_a_sample(mined: Experiment, tmp_path: Path) -> None:
    other = mined.with_overrides(
        {"mine.output_dir": str(tmp_path / "m"), "mine.max_queries": 2, "mine.random_ratio": 1.0}
    )
    done = mine(other)
    assert table(done, "groups").num_rows == 2
    assert table(done, "negatives")["rank"].null_count == 6 == done.outcome["drawn_at_random"]


def test_filters_that_leave_nothing_are_an_error_that_says_which(mined: Experiment, tmp_path: Path) -> None:
    other = mined.with_overrides({"mine.output_dir": str(tmp_path / "m"), "mine.max_score": -1.0})
    with pytest.raises(StageError, match=r"no query got a negative; .*'max_score'"):
        mine(other)
    assert not (tmp_path / "m").exists()


def test_an_index_of_other_data_is_refused(mined: Experiment, pets: Path, tmp_path: Path) -> None:
    other = mined.with_overrides({"data.output_dir": str(tmp_path / "d"), "data.options": {"max_documents": 9}})
    prepare(other)
    with pytest.raises(StageError, match="was built from other data"):
        mine(other)


def test_the_miner_takes_texts_and_never_returns_a_right_answer(tiny_retriever: str, ray_cluster: Any) -> None:
    miner = HardNegativeMiner(tiny_retriever, relative_margin=None, num_workers=1)
    found = miner.mine(QUERIES, DOCUMENTS, top_k=2, positives=[["a dog barks", "a puppy barks"], "a canary sings"])
    assert [row["query"] for row in found] == QUERIES
    assert found[0]["positives"] == ["a dog barks", "a puppy barks"]
    for row in found:
        assert len(row["negatives"]) == len(row["scores"]) == len(row["doc_ids"]) == 2
        assert not set(row["negatives"]) & set(row["positives"])
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert row["negatives"] == [DOCUMENTS[int(doc_id)] for doc_id in row["doc_ids"]]
    assert as_groups(found).to_pylist()[1]["labels"] == [1, 0, 0]


def test_without_positives_the_nearest_documents_come_back(tiny_retriever: str, ray_cluster: Any) -> None:
    found = HardNegativeMiner(tiny_retriever, num_workers=1).mine({"x": "a cat purrs"}, DOCUMENTS, top_k=1)
    assert found[0]["query_id"] == "x" and found[0]["negatives"] == ["a cat purrs"] and found[0]["positives"] == []


def test_what_does_not_fit_together_is_named_before_anything_runs(tiny_retriever: str) -> None:
    miner = HardNegativeMiner(tiny_retriever)
    for arguments, said in [
        ({"queries": "text", "documents": DOCUMENTS}, "queries are a str"),
        ({"queries": [], "documents": DOCUMENTS}, "no queries"),
        ({"queries": QUERIES, "documents": ["a", 7]}, r"documents\['1'\]: 7"),
        ({"queries": QUERIES, "documents": DOCUMENTS, "positives": ["a"]}, "1 positives for 2 queries"),
        ({"queries": QUERIES, "documents": DOCUMENTS, "positives": ["a", None]}, "query '1': None: must be a text"),
        ({"queries": QUERIES, "documents": DOCUMENTS, "positives": ["a", ["b", 3]]}, "query '1': 3: must be a text"),
        ({"queries": QUERIES, "documents": DOCUMENTS, "positives": {"5": "a"}}, "1 unknown queries"),
        ({"queries": QUERIES, "documents": DOCUMENTS, "qrels": {"0": {"99": 1}}}, "document '99' is not there"),
    ]:
        with pytest.raises(DataError, match=said):
            miner.mine(**arguments)
    with pytest.raises(ConfigError, match="relative_margn: unknown; did you mean 'relative_margin'"):
        HardNegativeMiner(tiny_retriever, relative_margn=0.1)


def test_mining_without_dev_queries_leaves_groups_that_can_be_trained_on(mined: Experiment, tmp_path: Path) -> None:
    done = mine(mined.with_overrides({"mine.output_dir": str(tmp_path / "m"), "mine.num_dev_queries": 0}))
    assert table(done, "dev_groups").num_rows == 0 and not has_dev(done.folder)
    left = {file.name for file in done.folder.iterdir() if not file.name.startswith("query_vectors-")}
    assert left == {
        "groups.parquet", "negatives.parquet", "report.md", "scores.png", "dev_groups.parquet", "dev_qrels.parquet",
        "manifest.json",
    }  # fmt: skip


def test_what_was_mined_is_kept_when_the_dev_search_is_stopped(
    mined: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = mined.with_overrides({"mine.output_dir": str(tmp_path / "m")})

    def stops(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "search_index", stops)
        with pytest.raises(KeyboardInterrupt):
            mine(config)
    [block] = (tmp_path / ".m.partial" / "candidates").iterdir()
    before = block.stat().st_mtime_ns
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # so that the block can be looked at afterwards
    assert mine(config).outcome["groups"] == 6
    assert (tmp_path / "m" / "candidates" / block.name).stat().st_mtime_ns == before


def test_a_query_whose_answers_the_corpus_lacks_makes_no_group(
    mined: Experiment, pets: Path, tmp_path: Path, encode_here: Any
) -> None:
    folder = tmp_path / "pets"
    shutil.copytree(pets, folder)
    with (folder / "qrels" / "train.tsv").open("a") as stream:
        stream.write("q99\tnowhere\t1\n")
    with (folder / "queries.jsonl").open("a") as stream:
        stream.write('{"_id": "q99", "text": "where is the unicorn"}\n')
    config = mined.with_overrides(
        {"output_dir": str(tmp_path / "run"), "data.source": str(folder), "data.options": {"allow_missing": True}}
    )
    prepare(config)
    build_index(config)
    done = mine(config)
    assert done.outcome["queries"] == 6
    assert all(max(group["labels"]) > 0 for group in table(done, "groups").to_pylist())


def test_another_run_of_the_same_name_is_mined_again(mined: Experiment, tmp_path: Path) -> None:
    files = [tmp_path / name / "run.trec" for name in ("a", "b")]
    corpus = pq.read_table(mined.folder("data") / "corpus")["doc_id"].to_pylist()
    for file in files:
        file.parent.mkdir()
        file.write_text("".join(f"q1 Q0 {doc_id} {n} {-n} x\n" for n, doc_id in enumerate(corpus, 1)))
    names = [str(file) for file in files]
    config = mined.with_overrides({"mine.output_dir": str(tmp_path / "m"), "mine.candidates": names})
    assert not mine(config).skipped and mine(config).skipped
    files[0].write_text("".join(f"q1 Q0 {doc_id} {n} {-n} x\n" for n, doc_id in enumerate(corpus[::-1], 1)))
    assert not mine(config).skipped


def test_other_filters_encode_no_query_again(
    mined: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = mined.with_overrides({"mine.output_dir": str(tmp_path / "m"), "mine.num_dev_queries": 0})
    before = table(mine(config), "negatives")
    monkeypatch.setattr(choosing, "encode_queries", None)
    after = mine(config.with_overrides({"mine.num_negatives": 2}))
    assert not after.skipped and table(after, "negatives").num_rows < before.num_rows
