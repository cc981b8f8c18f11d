"""A pipeline whose reranker is a service gives what the same model gives here."""

import pytest

from ranker.config import ScoringConfig
from ranker.rag import RAGPipeline
from ranker.rag.remote import RemoteRerankerError, RemoteScorer

QUERY = "how long does a cat sleep"


@pytest.mark.parametrize("route", ["", "/rerank", "/v1/rerank", "/v2/rerank"])
def test_every_route_gives_the_local_answer(
    route, rerank_service, tiny_retriever, pet_pipeline, pet_documents, tmp_path, monkeypatch
):
    far = RAGPipeline(
        tiny_retriever, rerank_service.url + route, 4, 3, device="cpu", reranker_api_key="secret",
        scoring=ScoringConfig(precision="fp32"),
    )  # fmt: skip
    far.index_documents(pet_documents)
    here, there = pet_pipeline.retrieve_and_rerank(QUERY), far.retrieve_and_rerank(QUERY)
    assert [r.id for r in there] == [r.id for r in here]
    assert [r.score for r in there] == pytest.approx([r.score for r in here], abs=1e-5)
    many = far.retrieve_and_rerank_many([QUERY, "water"])
    assert [r.id for r in many[0]] == [r.id for r in here]
    far.save(tmp_path / "saved")
    assert "secret" not in (tmp_path / "saved" / "pipeline.json").read_text()
    monkeypatch.setenv("RANKER_API_KEY", "secret")
    assert [r.id for r in RAGPipeline.load(tmp_path / "saved", device="cpu").retrieve_and_rerank(QUERY)] == [
        r.id for r in here
    ]


def test_a_service_that_is_full_is_asked_again_and_long_lists_are_split(rerank_service, monkeypatch):
    monkeypatch.setattr("ranker.rag.remote.WAITS_S", (0.01, 0.01))
    scorer = RemoteScorer(rerank_service.url, "secret")
    rerank_service.busy = 2
    pairs = [("cat", f"a cat {number}") for number in range(300)] + [("dog", "a dog")]
    rerank_service.calls.clear()
    scores = scorer.score(pairs)
    assert [len(body["texts"]) for _, body in rerank_service.calls] == [32] * 11 + [12, 1]
    assert scores == pytest.approx(rerank_service.scorer.score(pairs), abs=1e-4)
    rerank_service.busy = 3
    with pytest.raises(RemoteRerankerError, match=r"status 503: .*busy"):
        scorer.score(pairs)


@pytest.mark.parametrize("route", ["/rerank", "/v2/rerank"])
def test_a_service_that_does_not_tell_its_limit_is_asked_for_less(route, rerank_service):
    rerank_service.tells = False
    scorer = RemoteScorer(rerank_service.url + route, "secret")
    pairs = [("cat", "a cat " * (600 if number == 3 else 1)) for number in range(70)]
    for sizes in ([70, 35, 17, 17, 17, 17, 2], [17, 17, 17, 17, 2]):  # it is remembered
        rerank_service.calls.clear()
        scores = scorer.score(pairs)
        name = "texts" if route == "/rerank" else "documents"
        assert [len(body[name]) for _, body in rerank_service.calls] == sizes
    assert scores == pytest.approx(rerank_service.scorer.score(pairs), abs=1e-4)
    rerank_service.most = 0
    with pytest.raises(RemoteRerankerError, match=r"status 422: .*batch size 1 > maximum"):
        scorer.score(pairs)


def test_a_service_that_is_not_there_or_refuses_is_said_at_construction(rerank_service, monkeypatch):
    monkeypatch.setattr("ranker.rag.remote.WAITS_S", (0.01,))
    with pytest.raises(RemoteRerankerError, match=r"status 401: .*set reranker_api_key or RANKER_API_KEY"):
        RemoteScorer(rerank_service.url, "wrong")
    with pytest.raises(RemoteRerankerError, match="cannot be reached"):
        RemoteScorer("http://127.0.0.1:9")
    monkeypatch.setattr(rerank_service, "answer", lambda *_: (200, {"hello": 1}))
    with pytest.raises(RemoteRerankerError, match="is it a reranker"):
        RemoteScorer(rerank_service.url)
