from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import Experiment, IndexConfig
from ranker.manifest import StageError, run_stage
from ranker.registry import UnknownNameError
from ranker.retrieval import embed as module
from ranker.retrieval import embeddings as layout
from ranker.retrieval import search
from ranker.retrieval.embed import embeddings_folder
from ranker.retrieval.embeddings import Embeddings, plan_parts
from ranker.retrieval.encoder import Encoder
from ranker.retrieval.index import build_index
from ranker.retrieval.retriever import Retriever
from ranker.retrieval.search import search_index
from ranker.retrieval.shards import embeddings_of
from ranker.retrieval.signatures import hash_texts
from ranker.schemas import CORPUS, QUERIES, RUN

TEXTS = [
    "dog barks", "cat purrs", "goldfish eats flakes", "parrot repeats words", "rabbit chews hay",
    "puppy learns", "kitten opens eyes", "pond in summer", "canary sings", "hamsters run",
]  # fmt: skip
CORPUS_TABLE = pa.table([[f"0{n}" for n in range(10)], [""] * 10, TEXTS], schema=CORPUS)
QUERY_TABLE = pa.table([["q1", "q2"], ["which bird sings", "who purrs"]], schema=QUERIES)


def experiment(tmp_path: Path, model: str, corpus: pa.Table = CORPUS_TABLE, **index: Any) -> Experiment:
    """A finished stage `data`, and a config for the index of it."""
    config = Experiment(
        output_dir=str(tmp_path), index={"model": model, "precision": "fp32", "num_workers": 1, **index}
    )

    def store(work: Path) -> dict[str, Any]:
        (work / "corpus").mkdir()
        pq.write_table(corpus, work / "corpus" / "part-00000.parquet")
        return {}

    run_stage("data", config.folder("data"), {}, {"texts": str(corpus.to_pylist())}, store)
    return config


@pytest.fixture
def encoding(encode_here: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parts of four documents, encoded in this process."""
    monkeypatch.setattr(layout, "SMALLEST_PART", 4)
    return encode_here


def test_parts_cover_the_corpus_once_and_are_never_large() -> None:
    assert [(p.number, p.start, p.length) for p in plan_parts(600)] == [(0, 0, 256), (1, 256, 256), (2, 512, 88)]
    big = plan_parts(1_000_000)
    assert sum(p.length for p in big) == 1_000_000 and max(p.length for p in big) == 8192


@pytest.mark.parametrize("num_shards", [1, 2, 3, 10])
def test_any_number_of_shards_gives_the_list_of_a_full_comparison(
    num_shards: int, tiny_retriever: str, tmp_path: Path, ray_cluster: Any, encoding: Any
) -> None:
    config = experiment(tmp_path, tiny_retriever, shard_size=-(-10 // num_shards))
    folder = build_index(config).folder
    assert len(list((folder / "shards").iterdir())) == num_shards
    encoder = Encoder(tiny_retriever, precision="fp32", device="cpu", max_length=256)
    scores = encoder.encode_queries(QUERY_TABLE["text"].to_pylist()) @ encoder.encode_documents(TEXTS).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :4]
    run = search_index(folder, QUERY_TABLE, 4)
    assert run.schema == RUN
    assert run["doc_id"].to_pylist() == [f"0{row}" for line in order for row in line]
    assert run["rank"].to_pylist() == [1, 2, 3, 4] * 2
    np.testing.assert_allclose(run["score"], np.take_along_axis(scores, order, 1).ravel(), atol=1e-6)
    by_retriever = Retriever(folder).retrieve(QUERY_TABLE["text"].to_pylist(), 4)
    assert [doc_id for found in by_retriever for doc_id, _ in found] == run["doc_id"].to_pylist()
    assert [len(found) for found in Retriever(folder).retrieve(["cat"], 99)] == [10]


def test_ray_data_embeds_every_document_and_the_second_call_skips(
    tiny_retriever: str, tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SMALLEST_PART", 4)
    monkeypatch.setattr(module, "SENT_DOCUMENTS", 5)  # so that the actors read the documents themselves
    config = experiment(tmp_path, tiny_retriever, shard_size=7)
    done = build_index(config)
    assert done.outcome["documents"] == done.outcome["encoded"] == 10 and done.outcome["shards"] == 2
    found = embeddings_of(done.folder)
    assert found.folder == embeddings_folder(config) and found.sizes == (4, 4, 2)
    files = [pq.read_table(found.folder / f"part-0000{n}.parquet") for n in range(3)]
    table = pa.concat_tables(files)
    assert table["doc_id"].to_pylist() == CORPUS_TABLE["doc_id"].to_pylist()
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(
        vectors, Encoder(tiny_retriever, precision="fp32", device="cpu").encode_documents(TEXTS), atol=1e-5
    )
    assert found.hashes.tolist() == hash_texts(TEXTS).tolist() and found.signatures.shape == (10, 128)
    ids, some = found.rows(3, 9)
    assert ids == [f"0{n}" for n in range(3, 9)] and (some == vectors[3:9]).all()
    rows, positions = np.array([0, 1, 0]), np.array([9, 2, 3])
    np.testing.assert_allclose(
        found.similarities(vectors[:2], rows, positions), (vectors[rows] * vectors[positions]).sum(axis=1), atol=1e-6
    )
    assert build_index(config).skipped


def test_another_index_or_other_shards_of_the_same_embeddings_encode_nothing(
    tiny_retriever: str, tmp_path: Path, encoding: Any
) -> None:
    config = experiment(tmp_path, tiny_retriever)
    build_index(config)
    other = build_index(config.with_overrides({"index.factory": "HNSW8", "index.shard_size": 6}))
    assert len(encoding.asked) == 1 and not other.skipped and other.outcome["encoded"] == 0
    assert other.outcome["shards"] == 2 and len(Retriever(other.folder)) == 10


def test_only_new_texts_are_encoded_when_documents_are_added_changed_and_moved(
    tiny_retriever: str, tmp_path: Path, encoding: Any
) -> None:
    build_index(experiment(tmp_path, tiny_retriever))
    texts = ["a new one", *TEXTS[::-1], "TEXTS grow", "dog barks"]
    texts[5] = "changed"
    table = pa.table([[f"n{n}" for n in range(13)], [""] * 13, texts], schema=CORPUS)
    config = experiment(tmp_path, tiny_retriever, table)
    done = build_index(config)
    assert encoding.asked[1] == ["a new one", "changed", "TEXTS grow"] and done.outcome["encoded"] == 3
    ids, vectors = Embeddings.read(embeddings_folder(config)).rows(0, 13)
    assert ids == [f"n{n}" for n in range(13)]
    fresh = build_index(experiment(tmp_path / "fresh", tiny_retriever, table)).folder
    assert len(encoding.asked[2]) == 13
    np.testing.assert_allclose(vectors, embeddings_of(fresh).rows(0, 13)[1], atol=1e-6)
    for name in ("hashes", "signatures"):
        assert (getattr(embeddings_of(fresh), name) == getattr(embeddings_of(done.folder), name)).all()


def test_another_encoder_encodes_everything_again(tiny_retriever: str, tmp_path: Path, encoding: Any) -> None:
    build_index(experiment(tmp_path, tiny_retriever))
    build_index(experiment(tmp_path, tiny_retriever, max_length=2))
    assert [len(texts) for texts in encoding.asked] == [10, 10]


def test_an_interrupted_run_keeps_what_was_encoded(tiny_retriever: str, tmp_path: Path, encoding: Any) -> None:
    config = experiment(tmp_path, tiny_retriever)
    encoding.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        build_index(config)
    assert not config.folder("index").exists() and not embeddings_folder(config).exists()
    with pytest.raises(StageError):
        Retriever(config.folder("index"))
    done = build_index(config)
    assert encoding.asked == [TEXTS[:8], TEXTS[8:]] and done.outcome["encoded"] == 2
    assert len(Retriever(done.folder)) == 10


def test_an_index_without_its_embeddings_says_so(tiny_retriever: str, tmp_path: Path, encoding: Any) -> None:
    done = build_index(experiment(tmp_path, tiny_retriever))
    build_index(experiment(tmp_path, tiny_retriever, max_length=2, output_dir=str(tmp_path / "other")))
    with pytest.raises(StageError, match=r"not the embeddings that .*index was built from; run the stage index again"):
        embeddings_of(done.folder)


def test_what_cannot_be_built_is_refused_before_anything_is_encoded(tiny_retriever: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no finished stage"):
        build_index(Experiment(output_dir=str(tmp_path / "nowhere"), index={"model": tiny_retriever}))
    with pytest.raises(UnknownNameError, match="'fais'; did you mean 'faiss'"):
        build_index(experiment(tmp_path, tiny_retriever, store="fais"))


def test_many_queries_are_encoded_by_actors_to_the_same_vectors(
    tiny_retriever: str, tmp_path: Path, ray_cluster: Any, encoding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_index(experiment(tmp_path, tiny_retriever)).folder
    here = search.encode_queries(folder, QUERY_TABLE)
    monkeypatch.setattr(search, "QUERIES_IN_PLACE", 1)
    monkeypatch.setattr(search, "QUERY_BLOCK", 1)
    there = search.encode_queries(folder, QUERY_TABLE, actors=IndexConfig(num_workers=1))
    np.testing.assert_allclose(there, here, atol=1e-6)
