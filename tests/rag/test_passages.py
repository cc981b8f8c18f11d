"""Long documents are cut into passages, found by the best of them, and come back whole."""

from itertools import pairwise

import pytest
from transformers import AutoTokenizer

from ranker.rag import RAGPipeline
from ranker.rag.documents import Document, DocumentError, as_documents
from ranker.rag.passages import Cutter, cut_tokens

FILLER = "the dog needs a walk every day and a cat sleeps most of the day. "


@pytest.fixture(scope="module")
def tokenizer(tiny_retriever):
    return AutoTokenizer.from_pretrained(tiny_retriever)


def test_spans_cover_the_text_end_with_sentences_and_overlap():
    text = "aa bb. cc dd ee ff gg"
    tokens = [(0, 2), (3, 5), (5, 6), (7, 9), (10, 12), (13, 15), (16, 18), (19, 21)]
    # Of five tokens the last quarter begins at the fifth; no sentence ends there, so words count.
    assert [text[low:high] for low, high in cut_tokens(text, tokens, 5, 2)] == [
        "aa bb. cc dd ", "cc dd ee ff gg",
    ]  # fmt: skip
    assert [text[low:high] for low, high in cut_tokens(text, tokens, 4, 0)] == ["aa bb. ", "cc dd ee ff ", "gg"]
    assert cut_tokens(text, tokens, 8, 2) == [(0, len(text))]


@pytest.mark.parametrize("text", [FILLER * 20, "word" * 400, "猫が眠る。" * 60, "a\n\nb " * 200, "é🙂 " * 150])
@pytest.mark.parametrize(("size", "overlap"), [(20, 5), (40, 0), (17, 8)])
def test_every_passage_fits_and_nothing_is_lost(tokenizer, text, size, overlap):
    (passages,) = Cutter(tokenizer, 64, size, overlap).cut([Document("d", text)])
    for passage in passages:
        part = text[passage.start : passage.end]
        assert 0 < len(tokenizer(part, add_special_tokens=False)["input_ids"]) <= size
    assert passages[0].start == 0 and passages[-1].end == len(text)
    for one, other in pairwise(passages):
        assert one.start < other.start <= one.end < other.end  # no gap, and each goes on
    assert len({passage.key for passage in passages}) == len(passages)


def test_a_title_leaves_less_room_for_the_text(tokenizer):
    cutter = Cutter(tokenizer, 64, None, 8)
    (passages,) = cutter.cut([Document("d", FILLER * 10, "cat " * 30)])
    for passage in passages:
        reading = "cat " * 30 + FILLER[:0] + (FILLER * 10)[passage.start : passage.end]
        assert len(tokenizer(reading)["input_ids"]) <= 64


def test_lengths_that_cannot_be_are_refused(tiny_retriever):
    with pytest.raises(ValueError, match="chunk_tokens 100: the retriever reads 62 tokens of a text"):
        RAGPipeline(tiny_retriever, chunk_tokens=100, device="cpu")
    with pytest.raises(ValueError, match="chunk_overlap 30: must be between 0 and half of 40"):
        RAGPipeline(tiny_retriever, chunk_tokens=40, chunk_overlap=30, device="cpu")


@pytest.fixture(scope="module")
def long_documents(tiny_retriever, tiny_reranker) -> RAGPipeline:
    with pytest.MonkeyPatch.context() as patch:
        # In bf16 a passage's vector depends on its batch by more than the tests allow.
        patch.setattr("ranker.retrieval.encoder.cpu_has_bf16", lambda: False)
        pipeline = RAGPipeline(tiny_retriever, tiny_reranker, chunk_tokens=24, chunk_overlap=4, device="cpu")
    story = FILLER * 6 + "the parrot can learn to speak in the clean water. " + FILLER * 6
    pipeline.index_documents([{"id": "story", "text": story}, {"id": "other", "text": FILLER * 8}, "a fish"])
    return pipeline


def test_a_document_comes_back_once_and_whole_with_its_best_passage(long_documents):
    assert len(long_documents) == 3 and len(long_documents._library.passages) > 12
    query = "the parrot can learn to speak in the clean water"
    found = long_documents.retrieve(query)
    assert sorted(result.id for result in found) == ["0", "other", "story"]
    encoder = long_documents.encoder
    (vector,) = encoder.encode_queries([query])
    for result in found:
        assert result.passage == result.text[result.start : result.start + len(result.passage)]
        passages = [p for p in long_documents._library.passages.values() if p.doc_id == result.id]
        cosines = encoder.encode_documents([result.text[p.start : p.end] for p in passages]) @ vector
        assert result.score == pytest.approx(cosines.max(), abs=1e-5)
        assert passages[cosines.argmax()].start == result.start
    reranked = long_documents.retrieve_and_rerank(query)
    scored = long_documents.reranker.scores([(query, result.passage) for result in reranked])
    assert [result.score for result in reranked] == pytest.approx(list(scored), abs=1e-5)


def test_whole_documents_are_read_as_far_as_the_retriever_reads(tiny_retriever):
    pipeline = RAGPipeline(tiny_retriever, chunk_tokens=0, device="cpu")
    pipeline.index_documents([FILLER * 20])
    assert len(pipeline._library.passages) == 1


def test_an_update_encodes_only_passages_that_changed(tiny_retriever, monkeypatch):
    pipeline = RAGPipeline(tiny_retriever, chunk_tokens=24, chunk_overlap=4, device="cpu")
    pipeline.index_documents([{"id": "a", "text": FILLER * 6}, {"id": "b", "text": "a dog"}])
    encoded: list[str] = []
    encode = pipeline.encoder.encode_documents
    monkeypatch.setattr(pipeline.encoder, "encode_documents", lambda texts: encoded.extend(texts) or encode(texts))
    assert pipeline.update([{"id": "a", "text": FILLER * 6 + "and a parrot", "metadata": {"v": 2}}]) == 2
    assert len(encoded) == 1 and encoded[0].endswith("and a parrot")
    assert pipeline.update([{"id": "b", "text": "a dog", "metadata": {"v": 3}}]) == 2 and len(encoded) == 1
    (b,) = [result for result in pipeline.retrieve("dog") if result.id == "b"]
    assert b.metadata == {"v": 3}
    assert len(pipeline._library.store) == len(pipeline._library.passages)
    with pytest.raises(KeyError, match="'c'"):
        pipeline.update([{"id": "b", "text": "x"}, {"id": "c", "text": "y"}])
    assert next(r for r in pipeline.retrieve("dog") if r.id == "b").text == "a dog"


def test_a_folder_of_text_and_markdown(tiny_retriever, tmp_path):
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    (notes / "one.md").write_text("---\ntitle: Cats\nyear: 2024\n---\n# Heading\n\na cat sleeps")
    (notes / "deep" / "two.markdown").write_text("intro\n\n# Of dogs\n\na dog walks")
    (notes / "three.txt").write_text("\ufeffa fish swims")
    (notes / ".hidden.md").write_text("no")
    (notes / "picture.png").write_bytes(b"\x89PNG")
    found = {d.doc_id: d for d in as_documents(str(notes))}
    assert sorted(found) == ["deep/two.markdown", "one.md", "three.txt"]
    assert found["one.md"].title == "Cats" and found["one.md"].metadata == {"year": 2024, "source": "one.md"}
    assert found["deep/two.markdown"].title == "Of dogs" and found["three.txt"].text == "a fish swims"
    pipeline = RAGPipeline(tiny_retriever, device="cpu")
    assert pipeline.index_documents(notes) == 3
    assert [r.id for r in pipeline.retrieve("cat", where={"source": "one.md"})] == ["one.md"]
    (notes / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DocumentError, match=r"bad\.txt: cannot be read as UTF-8"):
        pipeline.index_documents(notes)
    with pytest.raises(DocumentError, match="no such folder"):
        as_documents(notes / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DocumentError, match=r"holds no \.txt"):
        as_documents(tmp_path / "empty")
