"""The one tokenisation of (query, document) pairs, shared by training, scoring and export."""

from collections.abc import Sequence

from transformers import BatchEncoding, PretrainedConfig, PreTrainedTokenizerBase

# A prefix of this many characters a token nearly always holds more tokens than a model reads.
CHARACTERS_PER_TOKEN = 16


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int
) -> BatchEncoding:
    """Token ids (and masks) of each pair as lists, unpadded and in the order given.

    The ids are those that ``sentence_transformers.CrossEncoder.predict`` feeds its model: special tokens included,
    the longer side cut first. A lone surrogate, which no tokenizer takes, is read as U+FFFD; what can never reach
    the model of a very long text is not tokenised.

    Args:
        tokenizer: the model's own.
        pairs: (query, document); either may be empty.
        max_length: longest pair in tokens, special tokens included.

    Raises:
        TypeError: naming the first pair that is not two strings.
    """
    for number, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(side, str) for side in pair):
            raise TypeError(f"pair {number} is {pair!r:.80}; a pair is two strings: (query, document)")
    if not pairs:
        return BatchEncoding({name: [] for name in tokenizer.model_input_names})
    queries = [readable(query, max_length) for query, _ in pairs]
    documents = [readable(document, max_length) for _, document in pairs]
    return tokenizer(queries, documents, truncation="longest_first", max_length=max_length, padding=False)


def readable(text: str, max_length: int) -> str:
    """``text`` as a tokenizer can take it, cut where its first ``max_length`` tokens are surely over."""
    limit = CHARACTERS_PER_TOKEN * max_length
    if len(text) > limit:
        text = _cut(text, limit, max_length)
    return without_surrogates(text)


def without_surrogates(text: str) -> str:
    """``text`` with surrogate pairs joined and lone surrogates, which are no character, as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins the surrogates that are pairs and leaves the lone ones to be replaced.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def longest_pair(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, wanted: int | None = None) -> int:
    """Tokens a pair may have: ``wanted``, else what the tokenizer says, never more than the model has positions.

    Raises:
        ValueError: where ``wanted`` is more than the model has positions for, or leaves no room for a token.
    """
    positions = getattr(config, "max_position_embeddings", -1) or -1
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "longformer"):
        positions -= (config.pad_token_id or 0) + 1  # their positions start behind the padding's
    room = positions if positions > 0 else int(1e9)
    if wanted is None:
        return int(min(tokenizer.model_max_length, room))
    least = tokenizer.num_special_tokens_to_add(pair=True) + 2
    if not least <= wanted <= room:
        raise ValueError(f"max_length {wanted}: this model takes {least} to {room} tokens a pair")
    return wanted


def _cut(text: str, limit: int, max_length: int) -> str:
    # Each word with a letter or digit is a token at least, so with more words than max_length nothing that is left
    # out could be kept by the truncation. Text without spaces stays whole.
    prefix = text[:limit]
    boundary = max(prefix.rfind(" "), prefix.rfind("\n"))
    words = prefix[: max(boundary, 0)].split()
    if sum(any(map(str.isalnum, word)) for word in words) <= max_length:
        return text
    return prefix[:boundary]
