from ranker.serving.truncation import first_tokens


def test_documents_are_cut_behind_a_token(tiny_reranker: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_reranker)
    long = "The dog barks, and the cat purrs."
    cut = first_tokens(tokenizer, ["short", long, "", "the dog \ud800 barks at the cat"], 3)
    assert cut == ["short", "The dog barks", "", "the dog \ufffd barks"]
    assert first_tokens(tokenizer, [long], 50) == [long]
