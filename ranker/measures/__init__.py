"""``ndcg@10`` and its friends, computed by ir-measures on Arrow tables.

Names follow the user: what is typed is what comes back. Binary measures take ``rel=`` (``mrr(rel=2)@10``).
"""

from ranker.measures.names import ALIASES, DEFAULT_MEASURES, MeasureError, deepest_cutoff, parse
from ranker.measures.order import Ties, order_run
from ranker.measures.scores import Counts, Scores, evaluate_run, tie_range

__all__ = [
    "ALIASES",
    "DEFAULT_MEASURES",
    "Counts",
    "MeasureError",
    "Scores",
    "Ties",
    "deepest_cutoff",
    "evaluate_run",
    "order_run",
    "parse",
    "tie_range",
]
