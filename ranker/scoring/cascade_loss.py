"""What a cascade saves and what it loses, measured on the user's own lists."""

import copy
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from ranker.scoring.cascade import Cascade
from ranker.scoring.parity import ndcg_loss
from ranker.scoring.samples import Samples
from ranker.scoring.scorer import Scorer

log = logging.getLogger(__name__)


def cascade_loss(scorer: Scorer, cascade: Cascade, samples: Samples) -> dict[str, Any]:
    """NDCG@10 that the cascade loses against reading everything in full, and both speeds, as plain values.

    ``{"tokens": ..., "keep": ..., "ndcg_loss": ..., "judged_by": "labels" or "the model in full", "lists": ...,
    "lists_cut": those longer than ``keep``, "pairs_per_second": {"cascade": ..., "in_full": ...}}``. Where no list is
    longer than ``keep`` nothing is lost or saved, which is logged.

    Args:
        scorer: of the model, without a cascade of its own. samples: whole lists, as
            :func:`ranker.scoring.samples.sample_lists` gives them.
    """
    pairs = samples.pairs
    scorer.score(pairs[:2])  # the first batch of an engine is slower
    cascaded = copy.copy(scorer)
    cascaded.cascade = cascade
    whole, in_full = _timed(lambda: scorer.score(pairs))
    short, in_two = _timed(lambda: cascaded.score(pairs))
    lengths = Counter(query for query, _ in pairs).values()
    found: dict[str, Any] = {
        "tokens": cascade.tokens,
        "keep": cascade.keep,
        "ndcg_loss": ndcg_loss(whole, short, pairs, samples.labels),
        "judged_by": "the model in full" if samples.labels is None else "labels",
        "lists": len(lengths),
        "lists_cut": sum(length > cascade.keep for length in lengths),
        "pairs_per_second": {
            "cascade": round(len(pairs) / in_two, 1), "in_full": round(len(pairs) / in_full, 1),
        },
    }  # fmt: skip
    if not found["lists_cut"]:
        log.warning("cascade: none of %d lists is longer than cascade_keep=%d, so nothing is lost or saved on them",
                    len(lengths), cascade.keep)  # fmt: skip
    log.info("cascade of %d tokens, %d kept: NDCG@10 %+.4f on %d lists, %.1f pairs/s instead of %.1f", cascade.tokens,
             cascade.keep, -found["ndcg_loss"], len(lengths), len(pairs) / in_two, len(pairs) / in_full)  # fmt: skip
    return found


def _timed(score: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    begin = time.perf_counter()
    scores = score()
    return scores, max(time.perf_counter() - begin, 1e-9)
