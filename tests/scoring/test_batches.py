"""Batches stay within the budget, hold every pair once, and pad no more than their longest row needs."""

import numpy as np
import pytest

from ranker.scoring.batches import pad_batch, plan_batches
from ranker.torch_on_cpu import padded_lengths


def test_the_longest_come_first_and_the_budget_counts_padding():
    # 10 tokens a row: two rows fit into 20; then 4 a row: five would fit, three are left.
    batches = plan_batches([4, 10, 3, 10, 4], batch_tokens=20)
    assert [batch.tolist() for batch in batches] == [[1, 3], [0, 4, 2]]


def test_every_position_occurs_once_and_no_batch_breaks_the_budget():
    lengths = np.random.default_rng(0).integers(1, 300, 500).tolist()
    batches = plan_batches(lengths, 1024)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 1024 for batch in batches)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)  # in the order given, batches of 32 would pad to about twice the tokens


def test_a_row_above_the_budget_goes_alone():
    assert [batch.tolist() for batch in plan_batches([5, 900, 5], 100)] == [[1], [0, 2]]
    assert plan_batches([], 100) == []
    with pytest.raises(ValueError, match="batch_tokens 0"):
        plan_batches([1], 0)


@pytest.mark.parametrize(("side", "expected"), [("right", [[7, 8, 9], [5, 1, 1]]), ("left", [[7, 8, 9], [1, 1, 5]])])
def test_padding_goes_to_the_tokenizer_s_side_with_its_value(side, expected):
    columns = {"input_ids": [[5], [6], [7, 8, 9]], "attention_mask": [[1], [1], [1, 1, 1]]}
    batch = pad_batch(columns, np.array([2, 0]), {"input_ids": 1}, side)
    assert batch["input_ids"].tolist() == expected
    assert batch["attention_mask"].sum() == 4 and batch["input_ids"].dtype == np.int64


def test_lengths_are_rounded_up_but_not_above_the_limit():
    assert padded_lengths([64, 65, 90, 100], 16, 100).tolist() == [64, 80, 96, 100]
    assert padded_lengths([3, 63], 16, 100).tolist() == [3, 63]  # too short to be worth it
    assert padded_lengths([3, 97], 1, 100).tolist() == [3, 97]
    batch = pad_batch({"input_ids": [[5, 6]]}, np.array([0]), {"input_ids": 1}, "left", tokens=4)
    assert batch["input_ids"].tolist() == [[1, 1, 5, 6]]
