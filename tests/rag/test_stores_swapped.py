"""The same questions get the same answers from every store, also after changes, saving and loading."""

import gc
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ranker.pretrained import ModelNotFoundError
from ranker.rag import RAGPipeline, saved
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
def test_a_store_in_a_database_keeps_the_last_saved_index_and_no_other(
    options, tiny_retriever, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("ranker.retrieval.stores.PineconeStore.settles_s", 0.1)  # what is lost is waited for as well
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
    again = load()  # which only reads: the other process may be about to save
    assert len(again) == 1 and [one.text for one in again.retrieve("a bird")] == ["a fish"]
    stray.save(tmp_path / "saved")
    assert {one.text for one in load().retrieve("pet")} == {"a fish", "a bird"}
    stray.add(["a cow"])
    again = load()
    again.delete(["0"])
    again.save(tmp_path / "saved")
    assert len(load()) == 1 == len(again._library.store)  # neither the fish nor the cow
    stray.save(tmp_path / "saved")  # another process removed two of its vectors
    assert {one.text for one in load().retrieve("pet")} == {"a fish", "a bird", "a cow"}


@pytest.mark.parametrize("options", ["chroma at a path", "lancedb at a path", "pinecone"], indirect=True)
def test_two_folders_of_one_database_have_nothing_to_do_with_each_other(options, tiny_retriever, tmp_path) -> None:
    secret = {name: value for name, value in options["store_options"].items() if name == "api_key"}

    def texts(name: str) -> set[str]:
        loaded = RAGPipeline.load(tmp_path / name, device="cpu", store_options=secret)
        return {one.text for one in loaded.retrieve("pet")}

    pipeline = RAGPipeline(tiny_retriever, device="cpu", **options)
    pipeline.index_documents([{"id": "1", "text": "a cat"}, {"id": "2", "text": "a dog"}])
    pipeline.save(tmp_path / "a")
    pipeline.update([{"id": "1", "text": "a fish"}])
    pipeline.save(tmp_path / "b")
    assert (texts("a"), texts("b")) == ({"a cat", "a dog"}, {"a fish", "a dog"})
    pipeline.delete(["2"])
    pipeline.save(tmp_path / "a")
    pipeline.save(tmp_path / "b")
    pipeline.index_documents(["a bird"])
    pipeline.save(tmp_path / "b")
    assert (texts("a"), texts("b")) == ({"a fish"}, {"a bird"})
    assert len(collections(options)) == 2  # those that were replaced are gone


@pytest.mark.parametrize("options", ["chroma at a path", "lancedb at a path", "pinecone"], indirect=True)
def test_what_is_never_saved_leaves_nothing_in_a_database(options, tiny_retriever, tmp_path) -> None:
    with pytest.raises(ModelNotFoundError):
        RAGPipeline(tiny_retriever, str(tmp_path / "no-such-model"), device="cpu", **options)
    pipeline = RAGPipeline(tiny_retriever, device="cpu", **options)
    assert not collections(options) and len(pipeline._library.store) == 0
    pipeline.index_documents(["a cat"])
    assert len(collections(options)) == 1
    del pipeline
    gc.collect()
    assert not collections(options)
    empty = RAGPipeline(tiny_retriever, device="cpu", **options)
    empty.save(tmp_path / "empty")
    secret = {name: value for name, value in options["store_options"].items() if name == "api_key"}
    loaded = RAGPipeline.load(tmp_path / "empty", device="cpu", store_options=secret)
    assert loaded.add(["a cat"]) == 1 and [one.text for one in loaded.retrieve("cat")] == ["a cat"]


def collections(options: dict[str, Any]) -> list[str]:
    """Their names in the database."""
    place = options["store_options"]
    if options["store"] == "chroma":
        import chromadb

        settings = chromadb.config.Settings(anonymized_telemetry=False)
        return [one.name for one in chromadb.PersistentClient(place["path"], settings=settings).list_collections()]
    if options["store"] == "lancedb":
        return [file.name for file in Path(place["path"]).glob("*.lance")]
    import pinecone

    index = pinecone.Pinecone(api_key=place["api_key"], host=place["host"]).Index(host=place["host"])
    return list(index.describe_index_stats().namespaces)


def test_what_pinecone_shows_late_is_waited_for(tiny_retriever, pinecone_server, tmp_path, monkeypatch) -> None:
    pytest.importorskip("pinecone")
    server = pinecone_server(32, lag=0.6)
    options = pinecone_server.options(server)
    monkeypatch.setattr("ranker.rag.library.LOOK_S", 0.05)
    pipeline = RAGPipeline(tiny_retriever, store="pinecone", store_options=options, device="cpu")
    pipeline.index_documents(["a cat", "a dog"])
    pipeline.save(tmp_path / "a")
    secret = {"api_key": options["api_key"]}
    loaded = RAGPipeline.load(tmp_path / "a", device="cpu", store_options=secret)
    assert {one.text for one in loaded.retrieve("pet")} == {"a cat", "a dog"}
    loaded.add(["a fish"])
    loaded.save(tmp_path / "b")  # copied
    assert len(server.spaces) == 2
    unsaved = RAGPipeline(tiny_retriever, store="pinecone", store_options=options, device="cpu")
    unsaved.index_documents(["a bird"])
    unsaved.index_documents(["a cow"])  # what nobody sees yet is removed all the same
    assert len(server.spaces) == 3
    monkeypatch.setattr("ranker.retrieval.stores.PineconeStore.settles_s", 0.2)
    server.spaces.clear()
    server._note()
    time.sleep(0.7)
    with pytest.raises(SavedIndexError, match="0 vectors for 2 passages"):
        RAGPipeline.load(tmp_path / "a", device="cpu", store_options=secret)


def test_options_that_a_store_does_not_take_are_said_at_construction(tiny_retriever) -> None:
    with pytest.raises(StoreError, match=r"store 'faiss' does not take \{'path': 'x'\}"):
        RAGPipeline(tiny_retriever, store_options={"path": "x"}, device="cpu")
    with pytest.raises(StoreError, match="does not take 'thesis'; give collection="):
        RAGPipeline(tiny_retriever, store="chroma", store_options={"existing": "thesis"}, device="cpu")
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


def test_two_that_save_into_one_folder_wait_for_each_other(tiny_retriever, tmp_path, monkeypatch) -> None:
    pipelines = [RAGPipeline(tiny_retriever, device="cpu") for _ in range(2)]
    for number, pipeline in enumerate(pipelines):
        pipeline.index_documents([f"a cat {number}"])
    inside, most = [], []
    write = saved.write_documents

    def slowly(*given: Any) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        write(*given)
        inside.pop()

    monkeypatch.setattr(saved, "write_documents", slowly)
    threads = [threading.Thread(target=one.save, args=(tmp_path / "saved",)) for one in pipelines * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4 and [entry.name for entry in (tmp_path / "saved").glob("index-*")] == ["index-4"]


def test_a_save_while_another_loads_gives_it_the_newer_index(tiny_retriever, tmp_path, monkeypatch) -> None:
    pipeline = RAGPipeline(tiny_retriever, device="cpu")
    pipeline.index_documents(["a cat"])
    folder = pipeline.save(tmp_path / "saved")
    pipeline.add(["a dog"])
    read = saved.read_documents

    def late(path: Path) -> Any:
        if path.parent.name == "index-1":
            pipeline.save(folder)  # which removes what is being read
        return read(path)

    monkeypatch.setattr(saved, "read_documents", late)
    assert len(RAGPipeline.load(folder, device="cpu")) == 2
