"""Wire formats of existing rerank clients: one file a format, each a request model and a function that answers.

A dialect knows no Ray, no web framework and no model. A new one is a new file and a line in ``routes.py``.
"""

from ranker.serving.dialects.base import Item, Ranking, Request, Text, rank

__all__ = ["Item", "Ranking", "Request", "Text", "rank"]
