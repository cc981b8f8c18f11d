"""The one tokenisation of (query, document) pairs, shared by training, scoring and export."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import BatchEncoding, PretrainedConfig, PreTrainedTokenizerBase

from ranker.scoring.template import PairTemplate, lengths_that_fit, pair_template, text_ids

# A prefix of this many characters a token nearly always holds more tokens than a model reads.
CHARACTERS_PER_TOKEN = 16
# A text without so many words is tokenised whole up to this many characters , and cut there.
MOST_CHARACTERS = 200_000


class Encoded(NamedTuple):
    """Pairs as rows of token ids.

    Args:
        columns: names that the model knows -> rows. owners: the pair of each row, rising by 0 or 1 from 0.
        lengths: tokens of each pair before it was cut, special tokens included; of a text that is so long that not
            all of it was tokenised, those of the part that was.
    """

    columns: BatchEncoding
    owners: list[int]
    lengths: list[int]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int
) -> BatchEncoding:
    """Token ids (and masks) of each pair as lists, unpadded and in the order given.

    The ids are those that ``sentence_transformers.CrossEncoder.predict`` feeds its model: special tokens included,
    the longer side cut first. A lone surrogate, which no tokenizer takes, is read as U+FFFD; what can never reach
    the model of a very long text is not tokenised, and a text that is in several pairs is tokenised once.

    Args:
        tokenizer: the model's own.
        pairs: (query, document); either may be empty.
        max_length: longest pair in tokens, special tokens included.

    Raises:
        TypeError: naming the first pair that is not two strings.
    """
    return encode_passages(tokenizer, pairs, max_length, 1).columns


def encode_passages(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int, max_passages: int
) -> Encoded:
    """The pairs of each query with the first ``max_passages`` passages of its document, and whose each one is.

    A passage is what one pair has room for; the next begins where it ends. The first is the pair as
    :func:`encode_pairs` cuts it. A tokenizer without a :class:`PairTemplate` gives first passages only.
    """
    for number, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(side, str) for side in pair):
            raise TypeError(f"pair {number} is {pair!r:.80}; a pair is two strings: (query, document)")
    if not pairs:
        return Encoded(BatchEncoding({name: [] for name in tokenizer.model_input_names}), [], [])
    queries = [readable(query, max_length) for query, _ in pairs]
    documents = [readable(document, max_length * max_passages) for _, document in pairs]
    template = pair_template(tokenizer)
    if template is None:
        return _cut_by_tokenizer(tokenizer, queries, documents, max_length)
    known = text_ids(tokenizer, [*queries, *documents])
    rows: list[tuple[Sequence[int], Sequence[int]]] = []
    owners: list[int] = []
    lengths: list[int] = []
    for number, (query, document) in enumerate(zip(queries, documents, strict=True)):
        found = _passages(known[query], known[document], max_length - template.num_special, max_passages)
        rows += found
        owners += [number] * len(found)
        lengths.append(template.num_special + len(known[query]) + len(known[document]))
    return Encoded(_columns(tokenizer, template, rows), owners, lengths)


def _cut_by_tokenizer(
    tokenizer: PreTrainedTokenizerBase, queries: list[str], documents: list[str], max_length: int
) -> Encoded:
    options = {"truncation": "longest_first", "max_length": max_length, "padding": False}
    columns = tokenizer(queries, documents, **options)
    lengths = list(map(len, columns["input_ids"]))
    full = [row for row, length in enumerate(lengths) if length >= max_length]  # cut, or just as long
    if full:
        texts = [[side[row] for row in full] for side in (queries, documents)]
        whole = tokenizer(*texts, truncation=False, verbose=False)["input_ids"]
        for row, ids in zip(full, whole, strict=True):
            lengths[row] = len(ids)
    return Encoded(columns, list(range(len(queries))), lengths)


def _passages(
    query: Sequence[int], document: Sequence[int], room: int, most: int
) -> list[tuple[Sequence[int], Sequence[int]]]:
    num_query, width = lengths_that_fit(len(query), len(document), room)
    starts = range(0, len(document), width)[:most] if width else range(1)
    return [(query[:num_query], document[start : start + width]) for start in starts] or [(query[:num_query], [])]


def _columns(
    tokenizer: PreTrainedTokenizerBase, template: PairTemplate, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> BatchEncoding:
    ids = [template.ids(query, document) for query, document in rows]
    columns = {
        "input_ids": ids,
        "token_type_ids": [template.type_ids(len(query), len(document)) for query, document in rows],
        "attention_mask": [[1] * len(row) for row in ids],
    }
    return BatchEncoding({name: columns[name] for name in columns if name in tokenizer.model_input_names})


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
    # out could be kept by the truncation.
    prefix = text[:limit]
    boundary = max(prefix.rfind(" "), prefix.rfind("\n"))
    words = prefix[: max(boundary, 0)].split()
    if sum(any(map(str.isalnum, word)) for word in words) <= max_length:
        return text[: max(limit, MOST_CHARACTERS)]
    return prefix[:boundary]
