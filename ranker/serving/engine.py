"""One loaded model with its batcher: text in, logits out, off the event loop; needs no cluster."""

import asyncio
import copy
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ranker.config import ScoringConfig
from ranker.scoring.pairs import encode_passages
from ranker.scoring.scorer import CPU_TOKENS, Scorer, load_scorer
from ranker.serving.batching import SHARE_OF_DEADLINE, GreedyBatcher, QueueFullError
from ranker.serving.calls import Scored
from ranker.serving.metrics import EngineMetrics
from ranker.serving.truncation import first_tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A query with one document, tokenised.

    Args:
        columns: names that the model knows -> rows of token ids, one for each passage that is read.
        cost: tokens of all rows. cut: whether not all of the texts are in the first row.
    """

    columns: dict[str, list[list[int]]]
    cost: int
    cut: bool


# What comes next waits for the running batch, so on a CPU a batch is small enough to end soon; a GPU fills its budget
# in less than that.
BATCH_S = 0.2
# Of the texts that are computed before the first request: some models read 8,192, which would take minutes.
WARM_TOKENS = 256
# Characters a token until something was tokenised; English text has about this.
CHARACTERS_PER_TOKEN = 4.0


class ModelEngine:
    """Scores documents; all requests share one batcher, and inference has a thread of its own.

    Args:
        model: folder or hub id. config: how it scores. metrics: where it counts.
    """

    def __init__(self, model: str, config: ScoringConfig, metrics: EngineMetrics | None = None) -> None:
        self.metrics = metrics or EngineMetrics()
        # A cascade compares all documents of a query; here a query's documents may come in several batches.
        self._scorer: Scorer = load_scorer(model, config.model_copy(update={"cascade_tokens": None}))
        # A tokenizer of its own, since a fast tokenizer must not be used by two threads at once.
        self._tokenizer = copy.deepcopy(self._scorer.tokenizer)
        self._special = self._tokenizer.num_special_tokens_to_add(pair=True)
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._characters_per_token = CHARACTERS_PER_TOKEN
        self._arriving: list[int] = []
        self._arrived, self._asked_at = 0, time.monotonic()
        engine = self._scorer.engine
        on_cpu = engine.device.startswith("cpu")
        budget = min(config.batch_tokens, CPU_TOKENS) if on_cpu else config.batch_tokens
        self._batcher: GreedyBatcher[Pair, float] = GreedyBatcher(
            self._infer,
            lambda pair: pair.cost,
            budget,
            lanes=engine.lanes.lanes,
            batch_s=BATCH_S,
            fill=0.5 if on_cpu else 0.0,
            observe=self.metrics.note_batch,
        )
        self._warm_up(budget)

    @property
    def pending_tokens(self) -> int:
        """Tokens that are queued, running or being tokenised (then by estimate)."""
        return self._batcher.pending_tokens + sum(self._arriving)

    @property
    def depth(self) -> int:
        """Requests that wait for a result."""
        return self._batcher.depth

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second at full load; 0 while there has been none."""
        return self._batcher.tokens_per_s or 0.0

    def arriving_tokens_per_s(self) -> float:
        """Tokens a second, by estimate, that came since this was last asked, refused requests included."""
        now = time.monotonic()
        rate = self._arrived / max(now - self._asked_at, 1e-3)
        self._arrived, self._asked_at = 0, now
        return rate

    async def score(self, query: str, documents: Sequence[str], within_s: float | None = None) -> Scored:
        """Logits of the documents, in order; equal documents get equal logits.

        Args:
            within_s: seconds that the caller waits. None: for ever.

        Raises:
            QueueFullError: at once, where the queue would take longer than the caller waits.
            Whatever the model raises on these documents.
        """
        different = list(dict.fromkeys(documents))
        begin = time.perf_counter()
        estimate = self._estimate(query, different)
        self._arrived += estimate
        allowed = None if within_s is None else within_s * SHARE_OF_DEADLINE
        try:
            self._batcher.admit(estimate, allowed, self._arriving)
            self._arriving.append(estimate)
            try:
                read = await asyncio.get_running_loop().run_in_executor(self._tokenizing, self._read, query, different)
            finally:
                self._arriving.remove(estimate)
        except QueueFullError:
            self.metrics.refused.inc()
            raise
        tokenised = time.perf_counter()
        try:
            timed = await self._batcher.submit_timed(read)
        except Exception:
            self.metrics.failed.inc()
            raise
        pairs = dict(zip(different, read, strict=True))
        truncated = sum(pairs[text].cut for text in documents)
        self._note(truncated, timed.queued, tokenised - begin, timed.inferred)
        logits = dict(zip(different, timed.results, strict=True))
        return Scored(
            [logits[text] for text in documents],
            tokens=sum(pairs[text].cost for text in documents),
            seconds=time.perf_counter() - begin,
            queued=timed.queued,
            tokenised=tokenised - begin,
            inferred=timed.inferred,
            truncated=truncated,
        )

    async def cut(self, documents: list[str], max_tokens: int | None) -> list[str]:
        """The documents up to ``max_tokens`` each; as they are where that is None, or more than the model reads."""
        if max_tokens is None or max_tokens >= self._scorer.max_length:
            return documents
        return await asyncio.get_running_loop().run_in_executor(
            self._tokenizing, first_tokens, self._tokenizer, documents, max_tokens
        )

    def describe(self) -> dict[str, Any]:
        """Engine, precision, device and limits."""
        engine = self._scorer.engine
        return {
            "engine": engine.name,
            "precision": engine.precision,
            "device": engine.device,
            "max_length": self._scorer.max_length,
            "batch_tokens": self._scorer.batch_tokens,
        }

    async def check(self) -> None:
        """Score one pair, in turn with the requests."""
        loop = asyncio.get_running_loop()
        await self._batcher.submit(await loop.run_in_executor(self._tokenizing, self._read, "healthy", ["healthy"]))

    def close(self) -> None:
        """Stop the threads after what they are doing."""
        self._batcher.close()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    def _estimate(self, query: str, documents: Sequence[str]) -> int:
        """Tokens of a request before it is tokenised: a refusal must not cost what it refuses."""
        limit, rate = self._scorer.max_length, self._characters_per_token
        return sum(min(limit, self._special + int((len(query) + len(text)) / rate)) for text in documents)

    def _read(self, query: str, documents: Sequence[str]) -> list[Pair]:
        """The pairs as the model will get them. Each text is tokenised once, here, and the query once for all."""
        scorer, limit = self._scorer, self._scorer.max_length
        texts = [(query, document) for document in documents]
        columns, owners, lengths = encode_passages(self._tokenizer, texts, limit, scorer.max_passages)
        pairs = []
        for owner, places in groupby(range(len(owners)), key=owners.__getitem__):
            rows = list(places)
            own = {name: [column[row] for row in rows] for name, column in columns.items()}
            pairs.append(Pair(own, sum(map(len, own["input_ids"])), lengths[owner] > limit))
        self._learn(query, documents, lengths)
        return pairs

    def _learn(self, query: str, documents: Sequence[str], lengths: Sequence[int]) -> None:
        """How many characters of these texts a token had, for the next estimate."""
        # Of a very long text not all is tokenised.
        short = [(len(query) + len(text), length) for text, length in zip(documents, lengths, strict=True)
                 if len(text) < 8 * self._scorer.max_length]  # fmt: skip
        tokens = sum(length - self._special for _, length in short)
        if tokens > 0:
            characters = sum(number for number, _ in short)
            self._characters_per_token += 0.1 * (characters / tokens - self._characters_per_token)

    def _warm_up(self, budget: int) -> None:
        """Compute a whole batch of texts of ordinary length: what a process does first is slow, and not its pace."""
        tokens = min(self._scorer.max_length, WARM_TOKENS)
        texts = [("warm", f"{number} " + "up " * tokens) for number in range(max(1, budget // tokens))]
        try:
            columns, owners, _ = encode_passages(self._tokenizer, texts, tokens, 1)
            self._scorer.score_passages(columns, owners, lanes=1)
        except Exception as error:  # Ray's health check scores a pair as well, and says what it comes to
            log.warning("the first batch failed: %s: %s", type(error).__name__, error)

    def _infer(self, pairs: list[Pair]) -> list[float]:
        columns = {name: [row for pair in pairs for row in pair.columns[name]] for name in pairs[0].columns}
        owners = [number for number, pair in enumerate(pairs) for _ in pair.columns["input_ids"]]
        return [float(logit) for logit in self._scorer.score_passages(columns, owners, lanes=1)]

    def _note(self, truncated: int, queued: float, tokenised: float, inferred: float) -> None:
        self.metrics.truncated.inc(truncated)
        self.metrics.queue_seconds.observe(queued)
        self.metrics.tokenise_seconds.observe(tokenised)
        self.metrics.inference_seconds.observe(inferred)
