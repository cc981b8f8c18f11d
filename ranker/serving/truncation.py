"""Documents cut to a number of tokens before they are paired with a query, as Cohere's ``max_tokens_per_doc`` asks."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ranker.scoring.pairs import readable


def first_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], count: int) -> list[str]:
    """Each text up to the end of its token number ``count``; shorter ones as they are.

    A token is at least a byte, so a text of fewer bytes is not looked at.
    """
    found = list(texts)
    long = [place for place, text in enumerate(texts) if len(text) * 4 > count and len(_bytes(text)) > count]
    if not long:
        return found
    cut = [readable(texts[place], count) for place in long]
    encoded = tokenizer(
        cut, add_special_tokens=False, truncation=True, max_length=count, return_offsets_mapping=tokenizer.is_fast
    )
    for row, (place, text) in enumerate(zip(long, cut, strict=True)):
        ids = encoded["input_ids"][row]
        if len(ids) < count:
            continue
        if tokenizer.is_fast:
            found[place] = text[: encoded["offset_mapping"][row][-1][1]]
        else:
            found[place] = str(tokenizer.decode(ids))
    return found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
