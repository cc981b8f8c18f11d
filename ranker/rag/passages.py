"""Documents cut into passages that a retriever can read whole, counted in its own tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ranker.rag.documents import Document

# A passage keeps room for this many tokens of text, however long its title is.
LEAST = 16
# A passage may end this share of its length earlier, where a sentence or a paragraph ends.
SLACK = 4
TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document.

    Args:
        key: under which its vector is filed: a hash of the document's id and of what is read, so that another text is
            another key. doc_id: of the document. start, end: characters of its text.
    """

    key: str
    doc_id: str
    start: int
    end: int


def reading(document: Document, passage: Passage) -> str:
    """What the models read of a passage: the title, which says what it is about, and its text."""
    return f"{document.title} {document.text[passage.start : passage.end]}".strip()


class Cutter:
    """Cuts documents.

    Args:
        tokenizer: the retriever's, with offsets. longest: tokens that the retriever reads, special ones included.
        chunk_tokens: of a passage. None: what the retriever reads; 0: documents stay whole.
        overlap: tokens that a passage shares with the one before it.

    Raises:
        ValueError: on a length that the retriever does not read, or an overlap of half of it or more.
    """

    def __init__(self, tokenizer: Any, longest: int | None, chunk_tokens: int | None, overlap: int) -> None:
        self._tokenizer = tokenizer if getattr(tokenizer, "is_fast", False) else None
        special = tokenizer.num_special_tokens_to_add() if self._tokenizer is not None else 0
        room = None if longest is None else max(1, longest - special)
        if chunk_tokens and (self._tokenizer is None or (room is not None and chunk_tokens > room)):
            limit = f"reads {room} tokens of a text" if self._tokenizer is not None else "has no tokenizer with offsets"
            raise ValueError(f"chunk_tokens {chunk_tokens}: the retriever {limit}; give fewer, or a larger max_length")
        self.room, self.size = room, room if chunk_tokens is None else chunk_tokens
        self.overlap = overlap if self.size and self._tokenizer is not None else 0
        if self.size and not 0 <= self.overlap <= self.size // 2:
            if chunk_tokens is None:
                self.overlap = self.size // 4  # of a retriever that reads very little
            else:
                raise ValueError(f"chunk_overlap {overlap}: must be between 0 and half of {self.size} tokens")

    def cut(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """The passages of each document, in order; together they cover its text."""
        found: list[list[Passage]] = []
        for start in range(0, len(documents), TOGETHER):
            some = documents[start : start + TOGETHER]
            found += [
                [_passage(document, low, high) for low, high in spans]
                for document, spans in zip(some, self._spans(some), strict=True)
            ]
        return found

    def _spans(self, documents: Sequence[Document]) -> list[list[tuple[int, int]]]:
        whole = [[(0, len(document.text))] for document in documents]
        if not self.size or self._tokenizer is None:
            return whole
        # No tokenizer makes more tokens than bytes, so most short texts need not be counted.
        long = [place for place, document in enumerate(documents) if len(document.reading.encode()) > self.size]
        if not long:
            return whole
        texts = [documents[place].text for place in long]
        titles = [documents[place].title for place in long]
        offsets = self._tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )["offset_mapping"]
        headings = self._tokenizer(titles, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        for place, text, tokens, heading in zip(long, texts, offsets, headings, strict=True):
            room = self.size if self.room is None else min(self.size, self.room - len(heading))
            whole[place] = cut_tokens(text, tokens, max(LEAST, room), self.overlap)
        return whole


def cut_tokens(text: str, tokens: Sequence[tuple[int, int]], size: int, overlap: int) -> list[tuple[int, int]]:
    """Character spans of at most ``size`` tokens that cover ``text``, each with about ``overlap`` tokens of the last.

    A span ends where a sentence does, or else a word, if one does in its last quarter; it starts with a word.
    """
    if len(tokens) <= size:
        return [(0, len(text))]
    spans: list[tuple[int, int]] = []
    first = 0
    while True:
        last = min(first + size, len(tokens))
        if last < len(tokens):
            last = _good_end(text, tokens, max(first + 1, last - size // SLACK), last)
        begin = tokens[first][0] if spans else 0
        spans.append((begin, tokens[last][0] if last < len(tokens) else len(text)))
        if last == len(tokens):
            return spans
        step = min(overlap, (last - first) // 2)
        first = next((at for at in range(last - step, last) if _starts_word(text, tokens, at)), last)


def _good_end(text: str, tokens: Sequence[tuple[int, int]], low: int, high: int) -> int:
    words = [at for at in range(high, low - 1, -1) if _starts_word(text, tokens, at)]
    ends = (
        [at for at in words if text[: tokens[at][0]].rstrip(" \t")[-1:] in (".", "!", "?", "\n", "。")] if words else []
    )
    return (ends or words or [high])[0]


def _starts_word(text: str, tokens: Sequence[tuple[int, int]], at: int) -> bool:
    start, end = tokens[at]
    return start == 0 or text[start - 1].isspace() or text[start:end][:1].isspace()


def _passage(document: Document, start: int, end: int) -> Passage:
    digest = blake2b(digest_size=16)
    for part in (document.doc_id, document.title, str(start), document.text[start:end]):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return Passage(digest.hexdigest(), document.doc_id, start, end)
