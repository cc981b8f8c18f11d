"""The same questions get the same answers from every store, also after changes, saving and loading."""

from pathlib import Path
from typing import Any

import pytest

from ranker.rag import RAGPipeline
from ranker.rag.saved import SavedIndexError
from ranker.retrieval.stores import StoreError

PACKAGES = {"chroma": "chromadb", "lancedb": "lancedb", "pinecone": "pinecone", "qdrant": "qdrant_client"}
ANIMALS = ("cat", "dog", "fish", "parrot")
DOCUMENTS = [
    {"id": f"d{n}", "text": f"a {ANIMALS[n % 4]} and {'water ' * (n % 5)} day {n}. " * (1 + 9 * (n % 7 == 0)),
     "metadata": {"even": n % 2 == 0, "n": n}} for n in range(60)
]  # fmt: skip
QUERIES = ["a cat and water", "the dog on day 12", "parrot"]
ALL = ["faiss", "faiss HNSW32", "chroma", "chroma at a path", "lancedb", "lancedb at a path", "pinecone", "qdrant"]


@pytest.fixture
def options(request: pytest.FixtureRequest, tmp_path: Path, pinecone_server: Any) -> dict[str, Any]:
    """``store`` and ``store_options`` of a label."""
    name, _, rest = request.param.partition(" ")
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    made: dict[str, Any] = {"factory": rest} if name == "faiss" and rest else {}
    if "path" in rest:
        made = {"path": str(tmp_path / "database")}
    if name == "pinecone":
        made = pinecone_server.options(pinecone_server(32))
    return {"store": name, "store_options": made}


def asked(pipeline: RAGPipeline) -> list[list[tuple[str, str, float]]]:
    lists = [
        *pipeline.retrieve_many(QUERIES, 12),
        *pipeline.retrieve_many(QUERIES, 12, where={"even": True, "n": {"$gte": 9}}),
        *pipeline.retrieve_and_rerank_many(QUERIES),
    ]
    return [[(one.id, one.passage, round(one.score, 4)) for one in found] for found in lists]


def story(retriever: str, reranker: str, folder: Path, **options: Any) -> list[Any]:
    settings = {"chunk_tokens": 20, "chunk_overlap": 4, "device": "cpu", "diversity": 0.3, "top_k_rerank": 4}
    pipeline = RAGPipeline(retriever, reranker, 10, **settings, **options)
    pipeline.index_documents(DOCUMENTS)
    answers = [asked(pipeline)]
    pipeline.save(folder)
    pipeline.delete(["d0", "d1", "d4"])
    pipeline.update([{"id": "d2", "text": "a cat and water", "metadata": {"even": True, "n": 2}}])
    pipeline.add([{"id": "new", "text": "parrot", "metadata": {"even": False, "n": 99}}])
    answers.append(asked(pipeline))
    secret = {name: value for name, value in options.get("store_options", {}).items() if name == "api_key"}
    # What was not saved is not there, and what was saved is: the process might have been killed here.
    loaded = RAGPipeline.load(folder, device="cpu", store_options=secret)
    assert (loaded.diversity, loaded.chunking["chunk_tokens"], len(loaded)) == (0.3, 20, 60)
    answers.append(asked(loaded))
    assert answers[2] == answers[0]
    return answers


@pytest.fixture(scope="module")
def expected(tiny_retriever: str, tiny_reranker: str, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return story(tiny_retriever, tiny_reranker, tmp_path_factory.mktemp("flat") / "saved")


@pytest.mark.parametrize("options", ALL, indirect=True)
def test_every_store_gives_the_same_answers(options, expected, tiny_retriever, tiny_reranker, tmp_path) -> None:
    for found, wanted in zip(
        story(tiny_retriever, tiny_reranker, tmp_path / "saved", **options), expected, strict=True
    ):
        for one, other in zip(found, wanted, strict=True):
            assert [name for name, _, _ in one] == [name for name, _, _ in other]
            assert [score for _, _, score in one] == pytest.approx([score for _, _, score in other], abs=3e-4)


@pytest.mark.parametrize("options", ["chroma at a path", "lancedb at a path", "pinecone"], indirect=True)
def test_a_store_in_a_database_keeps_the_last_saved_index_and_no_other(options, tiny_retriever, tmp_path) -> None:
    secret = {name: value for name, value in options["store_options"].items() if name == "api_key"}

    def load() -> RAGPipeline:
        return RAGPipeline.load(tmp_path / "saved", device="cpu", store_options=secret)

    pipeline = RAGPipeline(tiny_retriever, device="cpu", **options)
    pipeline.index_documents(["a cat", "a dog"])
    first = pipeline._library.store
    pipeline.save(tmp_path / "saved")
    pipeline.index_documents(["a fish"])  # not saved
    assert {one.text for one in load().retrieve("pet")} == {"a cat", "a dog"}
    pipeline.save(tmp_path / "saved")
    assert [one.text for one in load().retrieve("pet")] == ["a fish"]
    try:
        left = first.known()
    except Exception:  # each client says in its own way that a collection is gone
        left = set()
    assert not left
    stray = load()
    stray.add(["a bird"])  # and the process ends before it saves
    again = load()
    assert len(again) == 1 == len(again._library.store)
    again.delete(["0"])
    again.save(tmp_path / "saved")
    assert len(load()) == 0


def test_options_that_a_store_does_not_take_are_said_at_construction(tiny_retriever) -> None:
    with pytest.raises(StoreError, match=r"store 'faiss' does not take \{'path': 'x'\}"):
        RAGPipeline(tiny_retriever, store_options={"path": "x"}, device="cpu")
    with pytest.raises(StoreError, match="needs store_options"):
        RAGPipeline(tiny_retriever, store="pinecone", device="cpu")


def test_a_pinecone_index_of_another_dimension_is_refused_at_construction(tiny_retriever, pinecone_server) -> None:
    pytest.importorskip("pinecone")
    with pytest.raises(StoreError, match="at most 10000 neighbours; top_k_retrieval is 20000"):
        few = pinecone_server.options(pinecone_server(32))
        RAGPipeline(tiny_retriever, None, 20_000, store="pinecone", store_options=few, device="cpu")
    options = pinecone_server.options(pinecone_server(384))
    with pytest.raises(StoreError, match=r"has dimension 384, and the retriever's vectors have 32"):
        RAGPipeline(tiny_retriever, store="pinecone", store_options=options, device="cpu")


def test_a_store_that_lacks_removal_refuses_before_anything_changes(tiny_retriever, monkeypatch) -> None:
    pipeline = RAGPipeline(tiny_retriever, device="cpu")
    pipeline.index_documents(["a cat"])
    monkeypatch.setattr(pipeline._library.store, "lacks", frozenset({"remove"}))
    with pytest.raises(StoreError, match="cannot remove or replace"):
        pipeline.delete(["0"])
    with pytest.raises(StoreError, match="cannot remove or replace"):
        pipeline.update([{"id": "0", "text": "a dog"}])
    assert pipeline.add(["a dog"]) == 2


def test_a_broken_generation_is_said(tiny_retriever, tmp_path) -> None:
    pipeline = RAGPipeline(tiny_retriever, device="cpu")
    pipeline.index_documents(["a cat", "a dog"])
    folder = pipeline.save(tmp_path / "saved")
    pipeline.delete(["0"])
    pipeline._library.store.save(folder / "index-1" / "store")
    with pytest.raises(SavedIndexError, match="1 vectors for 2 passages"):
        RAGPipeline.load(folder, device="cpu")
