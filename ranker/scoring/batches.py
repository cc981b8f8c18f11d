"""Length-aware batches under a token budget: pure functions on lengths and lists of ids."""

from collections.abc import Mapping, Sequence

import numpy as np

Batch = dict[str, np.ndarray]


def plan_batches(lengths: Sequence[int] | np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Positions of each batch, longest sequences first, so that rows times the longest stays within the budget.

    Every position occurs exactly once; a sequence longer than the budget gets a batch of its own. Equal lengths
    keep their order.

    Args:
        lengths: tokens of each sequence.
        batch_tokens: budget of a batch, padding included.

    Raises:
        ValueError: on a budget below one token.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens {batch_tokens}: must be at least 1")
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches, start = [], 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        end = start + max(1, batch_tokens // longest)
        batches.append(order[start:end])
        start = end
    return batches


def pad_batch(
    columns: Mapping[str, Sequence[Sequence[int]]],
    rows: np.ndarray,
    pad_values: Mapping[str, int],
    side: str = "right",
    tokens: int = 0,
) -> Batch:
    """The chosen rows of each column as int64 (rows, longest), filled with the column's pad value on ``side``.

    At least ``tokens`` wide.
    """
    batch = {}
    for name, column in columns.items():
        chosen = [column[row] for row in rows]
        longest = max([tokens, *map(len, chosen)])
        table = np.full((len(chosen), longest), pad_values.get(name, 0), dtype=np.int64)
        for position, ids in enumerate(chosen):
            if side == "left":
                table[position, longest - len(ids) :] = ids
            else:
                table[position, : len(ids)] = ids
        batch[name] = table
    return batch


def share_batches(lengths: Sequence[int] | np.ndarray, batch_tokens: int, lanes: int) -> list[np.ndarray]:
    """:func:`plan_batches` with smaller batches where there would be fewer than ``lanes``, so that none stands idle."""
    share = -(-int(np.sum(lengths)) // max(1, lanes))
    return plan_batches(lengths, max(1, min(batch_tokens, share)))
