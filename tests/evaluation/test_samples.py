import pytest

from ranker.evaluation.samples import samples_to_collection


def facts(sample) -> tuple[list[str], dict[str, int]]:
    """(candidates in order, judged text -> grade) of a single sample."""
    collection = samples_to_collection([sample])
    texts = collection.texts()
    run = [texts[doc_id] for doc_id in collection.run["doc_id"].to_pylist()]
    return run, {texts[row["doc_id"]]: row["relevance"] for row in collection.qrels.to_pylist()}


def test_the_four_shapes() -> None:
    judged = {"yes": 1}
    assert facts({"query": "q", "positive": ["yes"], "negative": ["no"]}) == (["yes", "no"], judged)
    assert facts({"query": "q", "positives": "yes", "negatives": ["no"]}) == (["yes", "no"], judged)
    assert facts(("q", "yes", ["no", "never"])) == (["yes", "no", "never"], judged)
    assert facts({"query": "q", "documents": ["no", "yes"], "labels": [0, 2]}) == (["no", "yes"], {"no": 0, "yes": 2})


def test_a_positive_that_was_not_retrieved_is_judged_but_no_candidate() -> None:
    assert facts({"query": "q", "positive": ["lost"], "documents": ["no"]}) == (["no"], {"lost": 1})


def test_equal_texts_are_one_document() -> None:
    assert facts({"query": "q", "documents": ["same", "same"], "labels": [0, 1]}) == (["same"], {"same": 1})


def test_every_bad_sample_is_named() -> None:
    samples = [("q", "yes", "no"), {"query": "q"}, "text", {"query": "q", "documents": ["a"], "labels": [1, 0]}]
    with pytest.raises(ValueError, match="3 samples of an unknown shape") as error:
        samples_to_collection(samples)
    assert "sample 1: no 'positive'" in str(error.value) and "1 documents but 2 labels" in str(error.value)
    with pytest.raises(ValueError, match="no samples"):
        samples_to_collection([])
