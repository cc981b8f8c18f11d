import asyncio

from ranker.serving.calls import Neighbour, Scored

TEXTS = {"d1": "a dog barks", "d2": "a cat purrs", "d3": "a goldfish eats flakes"}


class Method:
    def __init__(self, function):
        self._function = function

    def remote(self, *args):
        return self._function(*args)


class StubReranker:
    """The logit of a document is its number of letters that the query has too."""

    def __init__(self, error: Exception | None = None, delay: float = 0.0):
        self.error, self.delay, self.calls = error, delay, []
        self.score, self.describe = Method(self._score), Method(self._describe)

    async def _score(self, query, documents):
        self.calls.append((query, documents))
        await asyncio.sleep(self.delay)
        if self.error:
            raise self.error
        logits = [float(sum(c in query for c in text)) for text in documents]
        return Scored(logits, tokens=7 * len(documents), seconds=0.0)

    async def _describe(self):
        if self.error:
            raise self.error
        return {"engine": "stub", "max_length": 64, "batch_tokens": 8192}


class StubRetriever:
    """Returns d1, d2, d3 in this order, whatever is asked."""

    def __init__(self):
        self.retrieve, self.describe = Method(self._retrieve), Method(self._describe)

    async def _retrieve(self, query, k):
        return [Neighbour(doc_id, 1.0 - place / 10, text) for place, (doc_id, text) in enumerate(TEXTS.items())][:k]

    async def _describe(self):
        return {"documents": len(TEXTS)}
