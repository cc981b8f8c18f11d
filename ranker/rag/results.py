"""What a question gets back: ranked documents, and how long each stage took."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from ranker.schemas import RankedDocument

SHOWN = 300


@dataclass(frozen=True)
class Result(RankedDocument):
    """A document that was found.

    Args:
        passage: the part of the text that was found and that the reranker read; a short document is one passage.
        start: where it starts in ``text``, in characters.
    """

    passage: str = ""
    start: int = 0

    @property
    def id(self) -> str:
        """The document's id."""
        return self.doc_id


class Results(list[Result]):
    """Results best first.

    Args:
        results: in order. query: that was asked.
        times: seconds of each stage: ``encode``, ``search``, ``rerank``, ``total``; of the whole batch, where several
            questions were asked at once.
    """

    def __init__(self, results: Iterable[Result], query: str, times: dict[str, float]) -> None:
        super().__init__(results)
        self.query, self.times = query, times

    def _repr_html_(self) -> str:
        """A table, as notebooks show it."""
        rows = [
            f"<tr><td>{one.rank}</td><td>{one.score:.4f}</td><td>{one.retrieval_rank or ''}</td>"
            f"<td>{escape(one.doc_id)}</td><td>{escape((one.passage or one.text)[:SHOWN])}</td></tr>"
            for one in self
        ]
        head = "<tr><th>rank</th><th>score</th><th>retrieval rank</th><th>id</th><th>passage</th></tr>"
        return f"<table><caption>{escape(self.query)}</caption>{head}{''.join(rows)}</table>"
