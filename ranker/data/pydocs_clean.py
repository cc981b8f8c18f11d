"""Text rules of the `pydocs` data set: what is a summary, what is a document, what is a copy."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

MIN_SUMMARY_WORDS, MAX_SUMMARY_WORDS = 5, 30
MIN_DOCUMENT_WORDS = 20
NUM_BANDS, ROWS_PER_BAND = 16, 3  # finds 98% of the pairs that share 0.6 of their shingles, 88% at 0.5

_MARKUP = [
    (re.compile(r"```.*?(```|\Z)", re.DOTALL), " "),  # fenced code
    (re.compile(r":[\w:+-]+:`([^`<]*?)\s*<[^`]*>`"), r"\1"),  # :ref:`text <target>`
    (re.compile(r":[\w:+-]+:`~(?:[^`]*\.)?([^`.]*)`"), r"\1"),  # :class:`~package.Name`
    (re.compile(r":[\w:+-]+:`[!]?([^`]*)`"), r"\1"),  # :class:`Name`
    (re.compile(r"`([^`<]*?)\s*<[^`]*>`_+"), r"\1"),  # `text <link>`_
    (re.compile(r"\[`~?([^\]`]*)`\](\([^)]*\))?"), r"\1"),  # [`Name`]
    (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),  # [text](link)
    (re.compile(r"`+~?([^`]*)`+_?"), r"\1"),
    (re.compile(r"https?://\S+"), " "),
]
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)(?<!cf)\.(?=\s|\Z)")
_NUMPY_HEADING = re.compile(r"^[ \t]*([A-Z][\w ]+?)[ \t]*\n[ \t]*[-=~^]{3,}[ \t]*$", re.MULTILINE)
_GOOGLE_HEADING = re.compile(r"^([A-Z][\w ]+?)[ \t]*::?[ \t]*\n(?=[ \t]+\S|[ \t]*\n)", re.MULTILINE)
_FOREIGN_SECTIONS = re.compile(r"see also|(usage )?examples?|(example )?usage|references?|(doc)?tests?|authors?", re.I)
_NO_SUMMARY = re.compile(
    r"see\b|deprecated|(an )?alias\b|test(s|ing)?\b|todo\b|fixme|copyright|licensed?\b|notes?\b|warning\b"
    r"|examples?\b|usage\b|arg(ument)?s?\b|param(eter)?s?\b|(return|yield)s?:|raises?\b|same as\b|like\b|similar to\b"
    r"|overrid|overload|inherit|(for )?internal\b|private\b|auto-?generated|do not\b|don't\b|please\b|refer\b"
    r"|this (is|was|should|will|does|has|file|code|module)\b|not (meant|intended|implemented)|implementation of the"
    r"|\S+ \(.*\)\s*:|[@:>*|(-]|\.\.",
    re.IGNORECASE,
)
_NO_SUMMARY_ANYWHERE = re.compile(
    r"see (also )?\S+ for|for (more )?details|docs?tring|deprecated|documentation|\bTODO\b|\?\?", re.IGNORECASE
)
_WORD = re.compile(r"[A-Za-z][A-Za-z]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_STOP_WORDS = """
a an the and or of to in on for from by with as at is are be been it its this that these those which when where if not
no into than then their can may will does do using use used given get gets set sets return returns returned returning
whether one all any each some new class method function object instance value values name type default true false none
optional self args kwargs param parameter parameters arg str int bool float list dict tuple callable base simple based
has have
"""
_STOP = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[str]:
    """The lower-case words of a text, identifiers split at underscores and capitals."""
    return [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text))]


def content_words(text: str) -> frozenset[str]:
    """The words that say what a text is about, cut to five letters so that inflections agree."""
    return frozenset(word[:5] for word in words(text) if word not in _STOP)


def split_docstring(docstring: str) -> tuple[str, str]:
    """The first sentence of a docstring and everything after it, both without markup, code and foreign sections."""
    text = docstring.expandtabs().strip()
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    head, _, rest = text.partition("\n\n")
    head = " ".join(head.split())
    end = _SENTENCE_END.search(head)
    if end is None:
        return head, _own_paragraphs(rest)
    return head[: end.end()], "\n".join(filter(None, [head[end.end() :].strip(), _own_paragraphs(rest)]))


def _own_paragraphs(text: str) -> str:
    """Drop what is about other things (See Also, References), examples, directives and doctests."""
    for heading in (_NUMPY_HEADING, _GOOGLE_HEADING):
        parts = heading.split(text)  # [before, title, section, title, section, ...]
        kept = [parts[0]]
        for title, section in zip(parts[1::2], parts[2::2], strict=True):
            if not _FOREIGN_SECTIONS.fullmatch(title.strip()):
                kept.append(f"{title.strip()}: {section.strip()}")
        text = "\n\n".join(kept)
    paragraphs = (block.strip() for block in re.split(r"\n[ \t]*\n", text))
    return "\n".join(" ".join(block.split()) for block in paragraphs if block and not _is_code(block))


def _is_code(block: str) -> bool:
    return ">>>" in block or block.startswith(("..", "$", "#", "import ", "from ", "|", "+-")) or block.endswith("::\n")


def is_summary(text: str) -> bool:
    """Whether a sentence describes a thing: long enough, in words, and no note, pointer or to-do."""
    tokens = text.split()
    if not MIN_SUMMARY_WORDS <= len(tokens) <= MAX_SUMMARY_WORDS or len(content_words(text)) < 3:
        return False
    if _NO_SUMMARY.match(text) or _NO_SUMMARY_ANYWHERE.search(text):
        return False
    letters = sum(character.isascii() and (character.isalpha() or character == " ") for character in text)
    return letters >= 0.85 * len(text)


def is_about(query: str, document: str) -> bool:
    """Whether a document says enough, shares its subject with the query and does not repeat it."""
    if len(document.split()) < MIN_DOCUMENT_WORDS:
        return False
    asked = content_words(query)
    if len(asked & content_words(document)) < 2:
        return False
    if " ".join(words(query)) in " ".join(words(document)):
        return False
    return all(jaccard(asked, content_words(part)) < 0.7 for part in re.split(r"[.\n]", document))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """The share of common items, from 0 to 1; two empty sets share nothing."""
    shared = len(left & right)
    return shared / max(len(left) + len(right) - shared, 1)


def shingles(text: str, size: int = 3) -> frozenset[str]:
    """The runs of `size` words of a text, numbers and all."""
    tokens = words(text)
    return frozenset(" ".join(tokens[i : i + size]) for i in range(max(len(tokens) - size + 1, 1)))


def first_copies(items: Sequence[frozenset[str]], threshold: float) -> list[int]:
    """Positions of the items that resemble no earlier kept item by `threshold` or more (MinHash, Broder 1997)."""
    kept: list[int] = []
    buckets: dict[bytes, list[int]] = {}
    for position, item in enumerate(items):
        bands = _bands(item)
        rivals = {rival for band in bands for rival in buckets.get(band, ())}
        if any(jaccard(item, items[rival]) >= threshold for rival in rivals):
            continue
        kept.append(position)
        for band in bands:
            buckets.setdefault(band, []).append(position)
    return kept


_SEEDS = np.random.default_rng(0).integers(1, 2**61, size=(2, NUM_BANDS * ROWS_PER_BAND), dtype=np.uint64)


def _bands(item: frozenset[str]) -> list[bytes]:
    codes = np.fromiter((zlib.crc32(part.encode()) for part in item), dtype=np.uint64, count=len(item))
    if not len(codes):
        return []
    multiplier, offset = _SEEDS | np.uint64(1)
    signature = ((codes[:, None] * multiplier + offset) >> np.uint64(32)).min(axis=0)
    return [bytes([band]) + row.tobytes() for band, row in enumerate(signature.reshape(NUM_BANDS, ROWS_PER_BAND))]
