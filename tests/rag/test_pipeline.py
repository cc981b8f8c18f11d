"""A pipeline finds what its two models say, keeps what it was given, and survives a kill while it saves."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from ranker.config import ScoringConfig
from ranker.rag import RAGPipeline
from ranker.rag.documents import DocumentError, as_documents
from ranker.rag.saved import HEAD, IndexMismatchError, SavedIndexError
from ranker.registry import UnknownNameError
from ranker.schemas import CORPUS, QRELS, QUERIES, Collection
from ranker.scoring import load_scorer, probabilities

DOCUMENTS = [
    {"id": "cat", "title": "Cats", "text": "a cat sleeps most of the day", "metadata": {"page": 3}},
    {"id": "dog", "text": "a dog needs a walk every day"},
    {"id": "fish", "text": "a fish swims in clean water"},
    {"id": "bird", "title": "Birds", "text": "a parrot can learn to speak"},
]
FP32 = {"scoring": ScoringConfig(precision="fp32"), "device": "cpu"}
QUERY = "how long does a cat sleep"


@pytest.fixture(scope="module")
def pipeline(tiny_retriever, tiny_reranker) -> RAGPipeline:
    built = RAGPipeline(tiny_retriever, tiny_reranker, top_k_retrieval=3, top_k_rerank=2, **FP32)
    assert built.index_documents(DOCUMENTS) == 4
    return built


def test_retrieval_is_the_cosine_order_of_title_and_text(pipeline):
    readings = ["Cats a cat sleeps most of the day", *(d["text"] for d in DOCUMENTS[1:3]),
                "Birds a parrot can learn to speak"]  # fmt: skip
    cosines = (pipeline.encoder.encode_queries([QUERY]) @ pipeline.encoder.encode_documents(readings).T)[0]
    found = pipeline.retrieve(QUERY, top_k=10)
    assert [document.doc_id for document in found] == [DOCUMENTS[i]["id"] for i in np.argsort(-cosines)]
    np.testing.assert_allclose([document.score for document in found], sorted(cosines, reverse=True), atol=1e-5)
    assert [(document.rank, document.retrieval_rank) for document in found] == [(n, n) for n in (1, 2, 3, 4)]


def test_reranking_is_the_scorer_s_order_of_what_was_retrieved(pipeline, tiny_reranker):
    retrieved = {document.doc_id: document for document in pipeline.retrieve(QUERY)}
    readings = {d["id"]: f"{d.get('title', '')} {d['text']}".strip() for d in DOCUMENTS if d["id"] in retrieved}
    logits = load_scorer(tiny_reranker, **{"config": FP32["scoring"], "device": "cpu"}).score(
        [(QUERY, reading) for reading in readings.values()]
    )
    expected = sorted(zip(readings, logits, strict=True), key=lambda pair: -pair[1])[:2]
    results = pipeline.retrieve_and_rerank(QUERY)
    assert [(r.doc_id, r.rank) for r in results] == [(name, rank) for rank, (name, _) in enumerate(expected, 1)]
    np.testing.assert_allclose([r.score for r in results], probabilities([s for _, s in expected]), atol=1e-6)
    for result in results:
        assert result.retrieval_rank == retrieved[result.doc_id].rank
        assert result.retrieval_score == retrieved[result.doc_id].score


def test_results_carry_text_and_metadata(pipeline):
    (cat,) = [document for document in pipeline.retrieve(QUERY, 4) if document.doc_id == "cat"]
    assert cat.text == "a cat sleeps most of the day" and cat.metadata == {"page": 3, "title": "Cats"}


def test_without_a_reranker_it_only_retrieves(tiny_retriever):
    pipeline = RAGPipeline(tiny_retriever, None, top_k_rerank=2, **FP32)
    with pytest.raises(ValueError, match="call index_documents first"):
        pipeline.retrieve(QUERY)
    pipeline.index_documents(["a cat", "a dog", "a bird \ud800"])
    assert [r.rank for r in pipeline.retrieve_and_rerank("a \udfff cat")] == [1, 2]
    with pytest.raises(ValueError, match="no reranker"):
        pipeline.rerank(QUERY, ["a cat"])


def test_documents_are_added_replaced_and_deleted(tiny_retriever):
    pipeline = RAGPipeline(tiny_retriever, **FP32)
    pipeline.index_documents(["a cat", "a dog"])
    assert pipeline.add(["a parrot", {"id": "0", "text": "a fish"}]) == 3
    assert {d.doc_id: d.text for d in pipeline.retrieve("pet")} == {"0": "a fish", "1": "a dog", "2": "a parrot"}
    with pytest.raises(KeyError, match="'nine'"):
        pipeline.delete(["1", "nine"])
    assert pipeline.delete(["1"]) == 2
    assert {d.doc_id for d in pipeline.retrieve("pet")} == {"0", "2"}


def test_a_collection_is_indexed_as_it_is(tiny_retriever):
    corpus = pa.table({"doc_id": ["x"], "title": ["T"], "text": ["t"]}, schema=CORPUS)
    collection = Collection("c", "test", corpus, QUERIES.empty_table(), QRELS.empty_table())
    pipeline = RAGPipeline(tiny_retriever, **FP32)
    assert pipeline.index_documents(collection) == 1
    assert pipeline.retrieve("t")[0].metadata == {"title": "T"}


def test_all_bad_documents_are_named_and_the_old_index_stays(pipeline):
    bad = ["fine", 7, {"id": "a"}, {"text": "x", "body": "y"}, {"text": "x", "metadata": {"f": open}}]
    with pytest.raises(DocumentError) as caught:
        pipeline.index_documents(bad)
    lines = str(caught.value).splitlines()
    assert lines[0] == "documents: 4 mistakes"
    assert "document 1 is a int" in lines[1] and "document 2: text must be a string" in lines[2]
    assert "unknown key 'body'" in lines[3] and "cannot be saved as JSON" in lines[4]
    with pytest.raises(DocumentError, match="id 'a' occurs 2 times"):
        as_documents([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}])
    with pytest.raises(DocumentError, match="one string"):
        as_documents("a cat")
    assert len(pipeline) == 4


def test_numbers_given_to_documents_avoid_ids_that_are_taken():
    names = [d.doc_id for d in as_documents(["x", {"id": 1, "text": "y"}, "z"])]
    assert names == ["0", "1", "2"]
    assert [d.doc_id for d in as_documents(["x"], taken={"0", "1", "2"})] == ["3"]


def test_a_saved_pipeline_answers_the_same(pipeline, tmp_path):
    pipeline.save(tmp_path / "saved")
    loaded = RAGPipeline.load(tmp_path / "saved", top_k_retrieval=3, top_k_rerank=2, **FP32)
    assert loaded.retrieve_and_rerank(QUERY) == pipeline.retrieve_and_rerank(QUERY)
    assert RAGPipeline.load(tmp_path / "saved", reranker_model=None, device="cpu").scorer is None


def test_a_kill_while_saving_leaves_the_last_good_index(pipeline, tiny_retriever, tmp_path, monkeypatch):
    small = RAGPipeline(tiny_retriever, **FP32)
    small.index_documents(["a cat"])
    small.save(tmp_path / "saved")

    def killed(*_):
        raise KeyboardInterrupt

    for place in ("ranker.rag.saved.write_json", "ranker.rag.saved.write_documents"):
        with monkeypatch.context() as patch:
            patch.setattr(place, killed)
            with pytest.raises(KeyboardInterrupt):
                pipeline.save(tmp_path / "saved")
        assert [d.text for d in RAGPipeline.load(tmp_path / "saved", **FP32).retrieve("cat")] == ["a cat"]
    pipeline.save(tmp_path / "saved")
    assert len(list((tmp_path / "saved").glob("index-*"))) == 1
    assert len(RAGPipeline.load(tmp_path / "saved", **FP32)) == 4


def test_another_retriever_or_dimension_is_refused_with_both_names(pipeline, tiny_retriever, tmp_path):
    folder = pipeline.save(tmp_path / "saved")
    other = tmp_path / "other-model"
    shutil.copytree(tiny_retriever, other)
    assert len(RAGPipeline.load(folder, retriever_model=str(other), reranker_model=None, device="cpu")) == 4
    (other / "README.md").write_text("other weights, so to speak")
    with pytest.raises(IndexMismatchError, match=r"tiny-retriever.*not with.*other-model"):
        RAGPipeline.load(folder, retriever_model=str(other))
    head = json.loads((folder / HEAD).read_text())
    (folder / HEAD).write_text(json.dumps({**head, "dimension": 384}))
    with pytest.raises(IndexMismatchError, match=r"has dimension 384; .*tiny-retriever' gives 32"):
        RAGPipeline.load(folder, reranker_model=None, device="cpu")


def test_a_folder_of_something_else_is_neither_loaded_nor_overwritten(pipeline, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(SavedIndexError, match=r"thesis\.txt"):
        pipeline.save(tmp_path)
    with pytest.raises(SavedIndexError, match="no saved pipeline"):
        RAGPipeline.load(tmp_path)


def test_an_unknown_store_lists_the_known_ones_before_a_model_is_loaded():
    with pytest.raises(UnknownNameError, match=r"unknown vector store 'fais'; did you mean 'faiss'"):
        RAGPipeline("no-such-model", store="fais")
    with pytest.raises(ValueError, match="top_k_rerank 0"):
        RAGPipeline("no-such-model", top_k_rerank=0)
