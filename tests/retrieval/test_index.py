from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import Experiment
from ranker.manifest import StageError, run_stage
from ranker.registry import UnknownNameError
from ranker.retrieval import index as module
from ranker.retrieval.encoder import Encoder
from ranker.retrieval.index import Part, build_index, embeddings_of, plan_parts
from ranker.retrieval.retriever import Retriever
from ranker.retrieval.search import search_index
from ranker.schemas import CORPUS, QUERIES, RUN, StoredCorpus

TEXTS = [
    "dog barks", "cat purrs", "goldfish eats flakes", "parrot repeats words", "rabbit chews hay",
    "puppy learns", "kitten opens eyes", "pond in summer", "canary sings", "hamsters run",
]  # fmt: skip
CORPUS_TABLE = pa.table([[f"0{n}" for n in range(10)], [""] * 10, TEXTS], schema=CORPUS)
QUERY_TABLE = pa.table([["q1", "q2"], ["which bird sings", "who purrs"]], schema=QUERIES)


def experiment(tmp_path: Path, model: str, **index: Any) -> Experiment:
    """A finished stage `data` of ten documents, and a config for the index of it."""
    config = Experiment(
        output_dir=str(tmp_path), index={"model": model, "precision": "fp32", "num_workers": 1, **index}
    )

    def store(work: Path) -> dict[str, Any]:
        (work / "corpus").mkdir()
        pq.write_table(CORPUS_TABLE, work / "corpus" / "part-00000.parquet")
        return {}

    run_stage("data", config.folder("data"), {}, {}, store)
    return config


def encode_in_place(corpus: StoredCorpus, parts: list[Part], index: Any) -> Any:
    """What the actors do, without actors."""
    encoder = Encoder(index.model, index.max_length, index.precision, "cpu")
    for part in parts:
        rows = corpus.rows(part.start, part.length)
        yield part.number, rows["doc_id"], encoder.encode_documents(rows["text"].to_pylist())


def test_parts_cover_the_corpus_once_and_never_cross_a_shard() -> None:
    parts = plan_parts(num_documents=1000, shard_size=600)
    assert [(p.shard, p.start, p.length) for p in parts] == [
        (0, 0, 256), (0, 256, 256), (0, 512, 88), (1, 600, 256), (1, 856, 144),
    ]  # fmt: skip
    assert [p.number for p in parts] == [0, 1, 2, 3, 4]
    big = plan_parts(num_documents=1_000_000, shard_size=50_000)
    assert sum(p.length for p in big) == 1_000_000 and len(big) < 100


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_any_number_of_shards_gives_the_list_of_a_full_comparison(
    num_shards: int, tiny_retriever: str, tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_encoded", encode_in_place)
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
    monkeypatch.setattr(module, "SMALLEST_PART", 4)
    config = experiment(tmp_path, tiny_retriever, shard_size=7)
    done = build_index(config)
    assert done.outcome["documents"] == done.outcome["encoded"] == 10 and done.outcome["shards"] == 2
    files = sorted((done.folder / "embeddings").iterdir())
    assert [file.name for file in files] == [f"part-0000{n}.parquet" for n in range(3)]
    table = pa.concat_tables([pq.read_table(file) for file in files])
    assert table["doc_id"].to_pylist() == CORPUS_TABLE["doc_id"].to_pylist()
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(
        vectors, Encoder(tiny_retriever, precision="fp32", device="cpu").encode_documents(TEXTS), atol=1e-5
    )
    np.testing.assert_allclose(embeddings_of(done.folder, ["03", "nobody"])["03"], vectors[3])
    assert build_index(config).skipped


def test_an_interrupted_run_keeps_what_was_encoded(
    tiny_retriever: str, tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALLEST_PART", 4)
    asked: list[list[int]] = []

    def encode(corpus: pa.Table, parts: list[Part], index: Any) -> Any:
        asked.append([part.number for part in parts])
        for number, doc_ids, vectors in encode_in_place(corpus, parts, index):
            if len(asked) == 1 and number == 2:
                raise KeyboardInterrupt
            yield number, doc_ids, vectors

    monkeypatch.setattr(module, "_encoded", encode)
    config = experiment(tmp_path, tiny_retriever)
    with pytest.raises(KeyboardInterrupt):
        build_index(config)
    assert not config.folder("index").exists()
    with pytest.raises(StageError):
        Retriever(config.folder("index"))
    done = build_index(config)
    assert asked == [[0, 1, 2], [2]] and done.outcome["encoded"] == 2
    assert len(Retriever(done.folder)) == 10


def test_what_cannot_be_built_is_refused_before_anything_is_encoded(tiny_retriever: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no finished stage"):
        build_index(Experiment(output_dir=str(tmp_path / "nowhere"), index={"model": tiny_retriever}))
    with pytest.raises(UnknownNameError, match="'fais'; did you mean 'faiss'"):
        build_index(experiment(tmp_path, tiny_retriever, store="fais"))
