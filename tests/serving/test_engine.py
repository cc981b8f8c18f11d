"""A loaded model with its batcher, without a cluster."""

import asyncio

import pytest

from ranker.config import ScoringConfig
from ranker.scoring.pairs import encode_pairs
from ranker.scoring.scorer import Scorer, load_scorer
from ranker.serving import engine as engines
from ranker.serving.batching import QueueFullError
from ranker.serving.engine import ModelEngine

FP32 = ScoringConfig(precision="fp32")
QUERY = "which animal guards a house"
DOCUMENTS = ["A dog barks.", "A cat purrs at night.", "dog " * 500, "", "A dog barks."]


@pytest.fixture(scope="module")
def engine(tiny_reranker: str) -> ModelEngine:
    return ModelEngine(tiny_reranker, FP32)


def test_logits_are_those_of_the_scorer_and_equal_documents_get_equal_ones(engine: ModelEngine, tiny_reranker: str):
    scored = asyncio.run(engine.score(QUERY, DOCUMENTS))
    expected = load_scorer(tiny_reranker, FP32).score([(QUERY, text) for text in DOCUMENTS])
    assert scored.logits == pytest.approx(expected.tolist(), abs=1e-5)
    assert scored.logits[0] == scored.logits[4]


def test_tokens_are_counted_as_the_model_reads_them_and_cuts_are_noted(engine: ModelEngine, tiny_reranker: str):
    scorer = load_scorer(tiny_reranker, FP32)
    documents = [*DOCUMENTS, "ünïcode 漢字 \ud800", "a b " * 1000]
    encoded = encode_pairs(scorer.tokenizer, [(QUERY, text) for text in documents], scorer.max_length)
    scored = asyncio.run(engine.score(QUERY, documents))
    assert scored.tokens == sum(map(len, encoded["input_ids"]))
    assert scored.truncated == 2
    assert scored.seconds >= scored.tokenised + scored.inferred


def test_a_request_that_would_come_too_late_is_refused_before_it_is_tokenised(engine: ModelEngine, monkeypatch):
    refused = engine.metrics.refused._value.get()
    monkeypatch.setattr(engine._batcher._pace, "_rate", 1.0)  # tokens a second
    arrived = engine._arrived

    async def story():
        first = asyncio.create_task(engine.score(QUERY, ["a dog"], within_s=1.0))  # nothing is queued: let in
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await engine.score(QUERY, ["a cat"] * 2, within_s=5.0)
        return await first

    assert len(asyncio.run(story()).logits) == 1
    assert engine.metrics.refused._value.get() == refused + 1
    assert engine._arrived > arrived  # autoscaling sees what was refused


@pytest.mark.parametrize(("max_length", "rows", "tokens"), [(32, 18, 32), (None, 9, 64)])
def test_before_it_is_asked_it_has_computed_a_batch_of_texts_of_ordinary_length(
    tiny_reranker: str, monkeypatch, max_length, rows, tokens
):
    computed = []
    real = Scorer.score_passages
    monkeypatch.setattr(engines, "WARM_TOKENS", 64)
    monkeypatch.setattr(
        Scorer, "score_passages", lambda self, columns, *rest, **named: computed.append(columns["input_ids"])
        or real(self, columns, *rest, **named),
    )  # fmt: skip
    config = ScoringConfig(precision="fp32", batch_tokens=600, max_length=max_length)
    warm = ModelEngine(tiny_reranker, config)
    [ids] = computed
    assert [len(row) for row in ids] == [tokens] * rows
    assert len(set(map(tuple, ids))) == rows, "equal ones would be computed once"
    assert warm.tokens_per_s == 0.0 and warm._characters_per_token == engines.CHARACTERS_PER_TOKEN


def test_a_first_batch_that_fails_is_told_and_no_reason_not_to_start(tiny_reranker: str, monkeypatch, caplog):
    real, calls = Scorer.score_passages, iter(["first"])

    def score(self, *given, **named):
        if next(calls, None):
            raise FloatingPointError("a logit is NaN")
        return real(self, *given, **named)

    monkeypatch.setattr(Scorer, "score_passages", score)
    engine = ModelEngine(tiny_reranker, FP32)
    assert "the first batch failed: FloatingPointError: a logit is NaN" in caplog.text
    assert len(asyncio.run(engine.score(QUERY, ["a dog"])).logits) == 1


def test_a_failing_model_fails_its_own_request_only(engine: ModelEngine, monkeypatch):
    real, [bad] = engine._scorer.score_passages, engine._tokenizer(["bad"], add_special_tokens=False)["input_ids"]

    def score(columns, owners, lanes):
        if any(set(bad) <= set(row) for row in columns["input_ids"]):
            raise FloatingPointError("a logit is NaN")
        return real(columns, owners, lanes)

    monkeypatch.setattr(engine._scorer, "score_passages", score)

    async def story():
        asked = [engine.score(QUERY, texts) for texts in (["a dog"], ["a cat", "bad"], ["a fish"])]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = asyncio.run(story())
    assert (len(first.logits), len(third.logits)) == (1, 1)
    assert isinstance(second, FloatingPointError)
    assert engine.pending_tokens == 0


def test_the_estimate_learns_how_long_tokens_are(engine: ModelEngine):
    text = "dog " * 40
    for _ in range(60):
        asyncio.run(engine.score("dog", [text]))
    [pair] = engine._read("dog", [text])
    assert engine._estimate("dog", [text]) == pytest.approx(pair.cost, rel=0.1)


def test_what_autoscaling_is_told(engine: ModelEngine, monkeypatch):
    engine.arriving_tokens_per_s()
    now = [engines.time.monotonic()]
    monkeypatch.setattr(engines.time, "monotonic", lambda: now[0])
    engine.arriving_tokens_per_s()
    tokens = asyncio.run(engine.score(QUERY, ["a dog barks"])).tokens
    now[0] += 2.0
    assert engine.arriving_tokens_per_s() == pytest.approx(tokens / 2, rel=0.5)
    assert engine.arriving_tokens_per_s() == 0.0
    assert engine.pending_tokens == 0
