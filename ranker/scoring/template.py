"""How a tokenizer puts a query and a document together, so that each text is tokenised once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

Ids = Sequence[int]


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens around the two texts of a pair, and the type ids of all five parts.

    Args:
        prefix, middle, suffix: ids before, between and behind the texts.
        types: type ids of prefix, query, middle, document and suffix; those of special tokens may differ one by one.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    types: tuple[tuple[int, ...], int, tuple[int, ...], int, tuple[int, ...]]

    @property
    def num_special(self) -> int:
        """Tokens of a pair that are no text."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def ids(self, query: Ids, document: Ids) -> list[int]:
        """Token ids of a pair."""
        return [*self.prefix, *query, *self.middle, *document, *self.suffix]

    def type_ids(self, num_query: int, num_document: int) -> list[int]:
        """Type ids of a pair."""
        before, query, between, document, behind = self.types
        return [*before, *[query] * num_query, *between, *[document] * num_document, *behind]


def lengths_that_fit(num_query: int, num_document: int, room: int) -> tuple[int, int]:
    """Tokens that the two texts keep in ``room`` when the longer one is cut first, as `tokenizers` cuts."""
    if num_query + num_document <= room:
        return num_query, num_document
    short, long = sorted((num_query, num_document))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (short, long) if num_query <= num_document else (long, short)


_known: "WeakKeyDictionary[PreTrainedTokenizerBase, PairTemplate | None]" = WeakKeyDictionary()


def pair_template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate | None:
    """The template of a fast tokenizer; None for one whose pairs are not two texts with special tokens around."""
    if tokenizer not in _known:
        _known[tokenizer] = _probe(tokenizer)
    return _known[tokenizer]


def text_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, list[int]]:
    """Token ids of each different text, whole and without special tokens."""
    different = list(dict.fromkeys(texts))
    backend: Any = tokenizer.backend_tokenizer
    # A call of the tokenizer leaves its own truncation behind.
    backend.no_truncation()
    backend.no_padding()
    found = backend.encode_batch_fast(different, add_special_tokens=False)
    return {text: encoding.ids for text, encoding in zip(different, found, strict=True)}


def _probe(tokenizer: PreTrainedTokenizerBase) -> PairTemplate | None:
    if not tokenizer.is_fast or tokenizer.truncation_side != "right":
        return None
    if not set(tokenizer.model_input_names) <= {"input_ids", "token_type_ids", "attention_mask"}:
        return None
    [encoding] = tokenizer(["a"], ["b"]).encodings or [None]
    if encoding is None:
        return None
    owners = [-1 if owner is None else owner for owner in encoding.sequence_ids]
    if 0 not in owners or 1 not in owners:
        return None
    query, document = _span(owners, 0), _span(owners, 1)
    pieces = [slice(0, query.start), query, slice(query.stop, document.start), document, slice(document.stop, None)]
    ids, types = ([tuple(column[piece]) for piece in pieces] for column in (encoding.ids, encoding.type_ids))
    template = PairTemplate(ids[0], ids[2], ids[4], (types[0], types[1][0], types[2], types[3][0], types[4]))
    # Said by the tokenizer and by the template, an example must be the same.
    alone = text_ids(tokenizer, ["a", "b"])
    return template if template.ids(alone["a"], alone["b"]) == encoding.ids else None


def _span(owners: list[int], owner: int) -> slice:
    return slice(owners.index(owner), len(owners) - owners[::-1].index(owner))
