"""What a reranked list is made of."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RankedDocument:
    """One document of a reranked list.

    Args:
        doc_id, text: of the document. metadata: what the user stored beside it.
        score: of the reranker (a logit through a sigmoid unless raw scores were asked for).
        rank: 1 for the best. retrieval_score, retrieval_rank: of the first stage; None when there was none.
    """

    doc_id: str
    text: str
    score: float
    rank: int
    retrieval_score: float | None = None
    retrieval_rank: int | None = None
    metadata: dict[str, object] = field(default_factory=dict)
