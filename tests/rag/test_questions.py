"""Filters, hybrid retrieval, thresholds, diversity, many questions at once and from many threads."""

import asyncio

import numpy as np
import pytest

from ranker.rag import RAGPipeline, words
from ranker.rag.filters import FilterError, predicate
from ranker.rag.fusion import diverse, fuse
from ranker.retrieval.bm25 import BM25
from ranker.retrieval.stores import StoreError

QUERY = "how long does a cat sleep"


def ids(results) -> list[str]:
    return [result.id for result in results]


def test_results_carry_both_ranks_both_scores_and_the_times(pet_pipeline):
    results = pet_pipeline.retrieve_and_rerank(QUERY)
    assert [result.rank for result in results] == [1, 2, 3] and results.query == QUERY
    assert sorted(results.times) == ["encode", "rerank", "search", "total"]
    times = results.times
    assert times["total"] == pytest.approx(times["encode"] + times["search"] + times["rerank"])
    assert all(0 < result.score < 1 and result.retrieval_rank in (1, 2, 3, 4) for result in results)
    assert "<td>cat</td>" in pet_pipeline.retrieve(QUERY)._repr_html_()


@pytest.mark.parametrize(("where", "expected"), [
    ({"kind": "mammal"}, {"cat", "dog"}),
    ({"legs": {"$gte": 2}, "kind": {"$ne": "bird"}}, {"cat", "dog"}),
    ({"$or": [{"kind": "fish"}, {"title": "Birds"}]}, {"fish", "bird"}),
    ({"tags": "walk"}, {"dog"}),
    ({"tags": {"$exists": False}, "legs": {"$in": [0, 2]}}, {"fish", "bird"}),
    ({"$not": {"kind": "mammal"}}, {"fish", "bird"}),
    ({"legs": {"$lt": "3"}}, set()),
    ({"legs": True}, set()),
    (lambda about: about["legs"] == 4, {"cat", "dog"}),
])  # fmt: skip
@pytest.mark.parametrize("hybrid", [False, True])
def test_only_documents_that_fit_come_back_in_the_same_order(pet_pipeline, monkeypatch, where, expected, hybrid):
    monkeypatch.setattr(pet_pipeline, "hybrid", hybrid)
    found = pet_pipeline.retrieve(QUERY, 4, where=where)
    assert set(ids(found)) == expected
    if not hybrid:
        assert ids(found) == [one for one in ids(pet_pipeline.retrieve(QUERY, 4)) if one in expected]
    assert set(ids(pet_pipeline.retrieve_and_rerank(QUERY, where=where))) == expected


@pytest.mark.parametrize(("where", "said"), [
    ({"legs": {"$near": 3}}, r"legs: unknown operator '\$near'; known: \$eq"),
    ({"$nor": []}, r"'\$nor' is no operator"),
    ({"legs": {"$in": "four"}}, r"legs: \$in takes a list, not 'four'"),
    ({"$and": {}}, "give a list of conditions"),
    ([1], "where is a list"),
])  # fmt: skip
def test_a_condition_that_is_none_is_refused_before_anything_is_searched(pet_pipeline, where, said):
    with pytest.raises(FilterError, match=said):
        pet_pipeline.retrieve(QUERY, where=where)


def test_a_missing_field_fits_only_what_denies_it():
    fitting = [name for name, rule in {"ne": {"$ne": 1}, "nin": {"$nin": [1]}, "eq": {"$eq": None}, "lt": {"$lt": 1}}
               .items() if predicate({"year": rule})({})]  # fmt: skip
    assert fitting == ["ne", "nin"]


def test_more_results_than_are_read_by_default_are_read(pet_pipeline, monkeypatch):
    monkeypatch.setattr(pet_pipeline, "top_k_retrieval", 1)
    assert len(pet_pipeline.retrieve_and_rerank(QUERY, top_k=4)) == 4
    assert len(pet_pipeline.retrieve_and_rerank(QUERY)) == 3  # top_k_rerank
    monkeypatch.setattr(pet_pipeline, "reranker", None)
    assert len(pet_pipeline.retrieve_and_rerank(QUERY, top_k=4)) == 4


def test_a_filter_that_lets_most_through_is_not_sent_to_the_store(tiny_retriever, monkeypatch):
    pipeline = RAGPipeline(tiny_retriever, device="cpu", chunk_tokens=8, chunk_overlap=0)
    pipeline.index_documents([
        {"id": f"{n}", "text": f"a cat and a dog {n}. " * 4, "metadata": {"n": n, "tenth": n % 10 == 0}}
        for n in range(40)
    ])  # fmt: skip
    store, sent = pipeline._library.store, []
    search = store.search

    def recorded(vectors, k, among=None):
        sent.append(None if among is None else len(among))
        return search(vectors, k, among)

    every = ids(pipeline.retrieve("cat", 40))
    monkeypatch.setattr(store, "search", recorded)
    assert ids(pipeline.retrieve("cat", 40, where={})) == every
    for least, kept in ((1, 39), (15, 25)):
        found = pipeline.retrieve("cat", 30, where={"n": {"$gte": least}})
        assert ids(found) == [one for one in every if int(one) >= least][:30] and len(found) == min(30, kept)
    assert set(sent) == {None}
    assert ids(pipeline.retrieve("cat", 3, where={"tenth": True})) == [one for one in every if int(one) % 10 == 0][:3]
    assert sent[-1] == sum(len(pipeline._library._keys[f"{n}"]) for n in (0, 10, 20, 30))


def test_fusion_sums_the_reciprocal_ranks():
    assert fuse([["a", "b"], ["b", "c"]]) == [
        ("b", pytest.approx(1 / 62 + 1 / 61)), ("a", pytest.approx(1 / 61)), ("c", pytest.approx(1 / 62)),
    ]  # fmt: skip


def test_hybrid_retrieval_brings_the_word_that_vectors_do_not_know(tiny_retriever):
    texts = [f"a cat number {n} sleeps" for n in range(30)] + ["the part xk472 is broken"]
    plain = RAGPipeline(tiny_retriever, device="cpu")
    plain.index_documents(texts)
    hybrid = RAGPipeline(tiny_retriever, hybrid=True, device="cpu")
    hybrid.index_documents(texts)
    query = "xk472"
    rank = ids(plain.retrieve(query, 31)).index("30") + 1
    found = hybrid.retrieve(query, 31)
    assert ids(found)[0] == "30"  # 1 / (60 + rank) + 1 / 61, and others have one part only
    assert found[0].retrieval_score == pytest.approx(1 / (60 + rank) + 1 / 61)
    hybrid.delete(["30"])
    assert "30" not in ids(hybrid.retrieve(query, 31))
    hybrid.add([{"id": "new", "text": "xk472 again"}])
    assert ids(hybrid.retrieve("xk472", 31)).index("new") < 5


def test_bm25_reads_what_is_new_and_nothing_twice(tiny_retriever, monkeypatch):
    pipeline = RAGPipeline(tiny_retriever, hybrid=True, device="cpu")
    pipeline.index_documents([{"id": f"{n}", "text": f"the part xk{n} is broken"} for n in range(5)])
    read = []
    split = words.tokenized

    def recorded(texts, language):
        read.append(list(texts))
        return split(texts, language)

    monkeypatch.setattr(words, "tokenized", recorded)
    pipeline.retrieve("xk3")
    assert [len(texts) for texts in read] == [5, 1]  # the documents, and the question
    pipeline.update([{"id": "3", "text": "the part xk3 is broken", "metadata": {"seen": True}}])
    built = pipeline._library._words._built
    assert pipeline.retrieve("xk3", 1)[0].metadata == {"seen": True}
    assert pipeline._library._words._built is built and len(read) == 3
    pipeline.update([{"id": "3", "text": "the part xk9 works"}])
    assert ids(pipeline.retrieve("xk9", 5))[0] == "3" and read[3:] == [["the part xk9 works"], ["xk9"]]
    whole = BM25([pipeline._library.read(passage) for passage in pipeline._library.passages.values()])
    for query in ("part xk9 broken", "xk3", "xk4 works"):
        order, scores = pipeline._library._words.scores(query)
        assert order == list(pipeline._library.passages)
        np.testing.assert_allclose(scores, whole.scores(split([query], "en")[0]), rtol=1e-6)
    pipeline.delete([f"{n}" for n in range(5)])
    pipeline.add(["the of and"])  # no word is left
    assert len(pipeline.retrieve("xk3")) == 1


def test_bm25_looks_deeper_where_many_passages_are_of_few_documents(tiny_retriever):
    pipeline = RAGPipeline(tiny_retriever, hybrid=True, device="cpu", chunk_tokens=8, chunk_overlap=0)
    pipeline.index_documents([
        {"id": "long", "text": "cat cat cat cat. " * 200}, {"id": "a", "text": "a cat and a dog"},
        {"id": "b", "text": "a dog and a fish and a cat"}, {"id": "c", "text": "a fish"},
    ])  # fmt: skip
    library = pipeline._library
    assert len(library.passages) > 40
    found = [one.passage.doc_id for one in library.lexical("cat", 3, None)]
    assert found[0] == "long" and set(found) == {"long", "a", "b"}
    assert [one.passage.doc_id for one in library.lexical("cat", 3, ["b", "c"])] == ["b"]


def test_results_below_the_threshold_are_left_out(pet_pipeline):
    scores = [result.score for result in pet_pipeline.retrieve_and_rerank(QUERY)]
    middle = (scores[0] + scores[1]) / 2
    assert (
        ids(pet_pipeline.retrieve_and_rerank(QUERY, score_threshold=middle))
        == ids(pet_pipeline.retrieve_and_rerank(QUERY))[:1]
    )
    assert pet_pipeline.retrieve_and_rerank(QUERY, score_threshold=1.0) == []


def test_mmr_by_hand():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    scores = [1.0, 0.9, 0.5]  # scaled: 1, 0.8, 0
    assert diverse(scores, vectors, 0.0, 3) == [0, 1, 2]
    # second choice: 0.5 * 0.8 - 0.5 * 1 = -0.1 for the copy, 0 for the other
    assert diverse(scores, vectors, 0.5, 2) == [0, 2]
    assert diverse([], np.zeros((0, 2), np.float32), 0.5, 2) == []


def test_a_copy_gives_way_to_something_else(tiny_retriever):
    pipeline = RAGPipeline(tiny_retriever, diversity=0.9, top_k_rerank=2, device="cpu")
    pipeline.index_documents(["a cat sleeps", "a cat sleeps", "a fish swims in clean water"])
    assert [result.text[:5] for result in pipeline.retrieve_and_rerank("a cat sleeps")] == ["a cat", "a fis"]
    with pytest.raises(StoreError, match="diversity reads vectors back"):
        RAGPipeline(tiny_retriever, diversity=0.5, store_options={"factory": "IVF4,Flat"}, device="cpu")
    with pytest.raises(ValueError, match=r"diversity 2"):
        RAGPipeline("no-such-model", diversity=2)


def test_strings_that_are_reranked_are_not_taken_for_documents_of_the_same_number(
    tiny_retriever, tiny_reranker, monkeypatch
):
    pipeline = RAGPipeline(tiny_retriever, tiny_reranker, diversity=1.0, top_k_rerank=2, device="cpu")
    pipeline.index_documents(["a fish swims", "a parrot can speak", "clean water"])
    foreign = ["a cat sleeps", "a cat sleeps", "a dog needs a walk every day"]
    asked = []
    encode = pipeline.encoder.encode_documents
    monkeypatch.setattr(pipeline.encoder, "encode_documents", lambda texts: asked.append(list(texts)) or encode(texts))
    found = pipeline.rerank("a cat sleeps", foreign)
    assert sorted(asked[0]) == sorted(foreign) and len({one.text for one in found}) == 2
    pipeline.retrieve_and_rerank("a fish")
    assert len(asked) == 1  # these are in the index


def test_many_questions_at_once_get_what_each_gets_alone(pet_pipeline):
    queries = [QUERY, "who can speak", "water"]
    many = pet_pipeline.retrieve_and_rerank_many(queries)
    for query, results in zip(queries, many, strict=True):
        alone = pet_pipeline.retrieve_and_rerank(query)
        assert ids(results) == ids(alone)
        np.testing.assert_allclose([r.score for r in results], [r.score for r in alone], atol=1e-5)
    assert pet_pipeline.retrieve_many([]) == []
    with pytest.raises(TypeError, match="give a list of questions"):
        pet_pipeline.retrieve_many("one")
    with pytest.raises(TypeError, match="query is 7"):
        pet_pipeline.retrieve(7)


def test_questions_are_answered_while_documents_are_added(tiny_retriever, tiny_reranker):
    pipeline = RAGPipeline(tiny_retriever, tiny_reranker, device="cpu")
    pipeline.index_documents(["a cat sleeps", "a dog walks"])

    async def both() -> list:
        asking = [pipeline.aretrieve_and_rerank(f"cat {number}") for number in range(20)]
        adding = [pipeline.aadd([{"id": f"n{number}", "text": f"a fish {number}"}]) for number in range(20)]
        return await asyncio.gather(*asking, *adding)

    answers = asyncio.run(both())
    assert all(len(results) >= 2 for results in answers[:20]) and len(pipeline) == 22
    first = asyncio.run(pipeline.aretrieve("cat"))
    assert ids(asyncio.run(pipeline.arerank("cat", first)))
    assert len(asyncio.run(pipeline.aretrieve_and_rerank_many(["cat", "dog"]))) == 2
    assert asyncio.run(pipeline.aindex_documents(["x"])) == 1


def test_documents_that_are_added_at_once_get_numbers_of_their_own(tiny_retriever, tmp_path):
    pipeline = RAGPipeline(tiny_retriever, device="cpu")

    async def many() -> None:
        await asyncio.gather(*(pipeline.aadd([f"a cat {number}", "a dog"]) for number in range(8)))

    asyncio.run(many())
    assert len(pipeline) == 16 == len(pipeline._library.store)
    assert {one.id for one in pipeline.retrieve("pet", 16)} == {f"{number}" for number in range(16)}
    assert {one.text for one in pipeline.retrieve("pet", 16)} == {"a dog", *(f"a cat {number}" for number in range(8))}


def test_every_call_can_be_awaited(tiny_retriever, tiny_reranker, tmp_path):
    pipeline = RAGPipeline(tiny_retriever, tiny_reranker, device="cpu")

    async def story() -> list:
        await pipeline.aindex_documents(["a cat", "a dog"])
        await pipeline.aupdate([{"id": "1", "text": "a fish"}])
        await pipeline.adelete(["0"])
        lists = await pipeline.aretrieve_many(["pet", "fish"], 1)
        lists += await pipeline.arerank_many(["pet"], [["a cow", "a hen"]])
        await pipeline.asave(tmp_path / "saved")
        return [{one.text for one in found} for found in lists]

    assert asyncio.run(story()) == [{"a fish"}, {"a fish"}, {"a cow", "a hen"}]
    assert len(RAGPipeline.load(tmp_path / "saved", device="cpu")) == 1
