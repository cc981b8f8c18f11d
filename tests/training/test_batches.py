from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from ranker.config import TrainConfig
from ranker.schemas import EXAMPLES, GROUPS
from ranker.training.batches import Group, GroupFile, collate, cut, widen, write_group_file
from ranker.training.measure import passes
from ranker.training.objective import prepare
from ranker.training.order import Order, Part, deal, parts_of, total_steps
from ranker.training.schedule import rate_factor


def order(count: int, groups: int, seed: int = 1, window: int = 1, sizes: list[int] | None = None) -> Order:
    return Order(np.array(sizes or [1] * count), [Part(0, count, groups)], seed, window)


def test_steps_walk_through_each_epoch_once_and_lose_nothing_between() -> None:
    ten = order(10, 4)
    rows = np.concatenate([ten.rows(step) for step in range(5)])  # 20 places: two epochs of 10
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert order(10, 4).rows(2).tolist() == rows[8:12].tolist()  # over the epochs' border, without the others
    assert order(10, 4, seed=2).rows(0).tolist() != rows[:4].tolist()


def test_a_batch_larger_than_the_set_repeats_it() -> None:
    assert sorted(order(3, 6).rows(0)) == [0, 0, 1, 1, 2, 2]


def test_a_window_makes_batches_of_like_length_in_random_order() -> None:
    sizes = [(row * 37) % 1000 for row in range(66)]
    found = order(66, 4, window=8, sizes=sizes)
    batches = [found.rows(step) for step in range(16)]
    assert sorted(np.concatenate([*batches, found.rows(16)[:2]])) == list(range(66))  # an epoch, nothing twice
    spreads = [max(sizes[row] for row in batch) - min(sizes[row] for row in batch) for batch in batches]
    assert np.mean(spreads) < 150  # 600 as the permutation has them
    means = [np.mean([sizes[row] for row in batch]) for batch in batches[:8]]
    assert means != sorted(means)


def test_every_batch_holds_the_share_of_each_source() -> None:
    parts = parts_of([10, 4, 5], [0.25, 0.25], 8)
    assert parts == [Part(0, 10, 4), Part(10, 4, 2), Part(14, 5, 2)]
    rows = np.array([Order(np.ones(19), parts, 1).rows(step) for step in range(5)])
    assert (rows[:, :4] < 10).all() and (rows[:, 4:6] >= 10).all() and (rows[:, 6:] >= 14).all()
    assert sorted(rows[:2, 4:6].ravel()) == [10, 11, 12, 13]  # an epoch of its own
    with pytest.raises(ValueError, match="batch_size 2"):
        parts_of([10, 4, 5], [0.5, 0.5], 2)


@pytest.mark.parametrize(("epochs", "max_steps", "steps"), [(1, None, 10), (0.5, None, 5), (3, 7, 7), (0.001, None, 1)])
def test_total_steps(epochs: float, max_steps: int | None, steps: int) -> None:
    assert total_steps(160, 16, epochs, max_steps) == steps


def test_workers_get_groups_of_like_length_in_every_piece() -> None:
    sizes = np.array([80, 10, 30, 20, 70, 60, 40, 50])
    dealt = deal(sizes, num_pieces=2, num_workers=2)
    assert [[sizes[mine].tolist() for mine in piece] for piece in dealt] == [[[10, 30], [20, 40]], [[50, 70], [60, 80]]]


def test_three_workers_share_eight_groups() -> None:
    dealt = deal(np.arange(8), num_pieces=1, num_workers=3)
    assert [mine.tolist() for mine in dealt[0]] == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize(
    ("labels", "size", "kept"),
    [
        ([1, 0, 0, 0], 3, [0, 1, 2]),
        ([1, 1, 1, 0, 0, 0], 4, [0, 1, 3, 4]),  # half of it positives
        ([1, 1, 1, 0], 4, [0, 1, 2, 3]),  # room for all
        ([1, 1, 1, 0], 3, [0, 1, 3]),  # too few negatives
        ([0.9, 0.7, 0.2], 2, [0, 1]),  # a teacher's scores
        ([0, 0, 1], 2, [0, 2]),
        ([0, 0], 8, [0, 1]),
    ],
)
def test_cut_keeps_negatives_beside_positives(labels: list[float], size: int, kept: list[int]) -> None:
    assert cut(labels, size) == kept


def test_groups_are_read_by_row(tmp_path: Path) -> None:
    rows = [{"query_id": str(n), "query": f"q{n}", "documents": ["ab"] * (1 + n % 2), "labels": [1.0] * (1 + n % 2)}
            for n in range(1030)]  # fmt: skip
    write_group_file(pa.Table.from_pylist(rows, schema=GROUPS), tmp_path / "groups.arrow")
    groups = GroupFile(tmp_path / "groups.arrow")
    assert len(groups) == 1030
    assert groups[1029] == Group("q1029", ("ab", "ab"), (1.0, 1.0))
    assert groups.sizes[[0, 1, 1028]].tolist() == [4, 8, 7]  # query and document, each as often as it is read


def test_a_group_without_one_label_a_document_is_named(tmp_path: Path) -> None:
    rows = [{"query_id": "0", "query": "q", "documents": ["a"], "labels": [1.0]},
            {"query_id": "1", "query": "q", "documents": ["a", "b"], "labels": [1.0]},
            {"query_id": "2", "query": "q", "documents": [], "labels": []}]  # fmt: skip
    with pytest.raises(ValueError, match=r"2 groups .* rows \[1, 2\]"):
        write_group_file(pa.Table.from_pylist(rows, schema=GROUPS), tmp_path / "groups.arrow")


def test_collate_lays_pairs_out_group_after_group(tiny_backbone: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    groups = [Group("cat", ("a cat", "a dog", "a bird"), (1, 0, 0)), Group("dog", ("a dog a dog",), (2,))]
    batch = collate([group.take(cut(group.labels, 2)) for group in groups], tokenizer, max_length=6)
    assert batch.labels.tolist() == [[1, 0], [2, 0]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in batch.columns["input_ids"]]
    assert words[1] == ["[CLS]", "cat", "[SEP]", "a", "dog", "[SEP]"]
    assert words[2] == ["[CLS]", "dog", "[SEP]", "a", "dog", "[SEP]"]  # cut to six
    assert batch.lengths.tolist() == [6, 6, 6]


def test_scores_are_read_with_their_documents(tmp_path: Path) -> None:
    rows = [{"query_id": "0", "query": "q", "documents": ["a", "b"], "labels": [1.0, 0.0], "scores": [0.5, None]},
            {"query_id": "1", "query": "q", "documents": ["a"], "labels": [1.0], "scores": None}]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=GROUPS.append(EXAMPLES.field("scores")))
    write_group_file(table, tmp_path / "groups.arrow")
    groups = GroupFile(tmp_path / "groups.arrow")
    assert groups[0].scores[0] == 0.5 and np.isnan(groups[0].scores[1]) and groups[1].scores == ()
    assert groups[0].take([1]).documents == ("b",) and len(groups[0].take([1]).scores) == 1
    assert groups.query_ids([1, 0]) == ["1", "0"]
    table = table.set_column(4, "scores", pa.array([[0.5], None], table.schema.field("scores").type))
    with pytest.raises(ValueError, match=r"1 groups have not one score a document; rows \[0\]"):
        write_group_file(table, tmp_path / "groups.arrow")


def test_negatives_of_other_queries_are_none_of_its_own_texts() -> None:
    groups = [Group("q", ("a", "b"), (1, 0), (0.5, 0.1)), Group("r", ("b", "c"), (1, 0)), Group("s", ("d",), (1,))]
    wide = widen(groups, 2, [1, 1])
    assert [len(group.documents) for group in wide] == [4, 4, 3]
    assert set(wide[0].documents[2:]) == {"c", "d"} and wide[0].labels == (1, 0, 0.0, 0.0)
    assert wide[0].scores[:2] == (0.5, 0.1) and np.isnan(wide[0].scores[2:]).all() and wide[1].scores == ()
    assert set(wide[1].documents[2:]) == {"a", "d"}  # "b" is its own
    assert widen(groups, 2, [1, 1]) == wide


def test_the_losses_that_live_on_them_get_four(train_config: Callable[..., TrainConfig]) -> None:
    groups = [Group(f"q{row}", tuple(f"{row}-{n}" for n in range(6)), (1, 0, 0, 0, 0, 0)) for row in range(3)]
    for loss, size in (("lce", 4), ("multiple_negatives", 8), ("cached_multiple_negatives", 8)):
        assert [len(group.documents) for group in prepare(groups, train_config(loss=loss), (13, 0))] == [size] * 3
    assert len(prepare(groups, train_config(loss="lce", in_batch_negatives=1), (13, 0))[0].documents) == 5


def test_every_worker_makes_equally_many_passes_over_the_dev_rows() -> None:
    lengths = np.arange(70)  # three passes of 32, 32 and 6
    mine, yours = (passes(lengths, rank, 2) for rank in (0, 1))
    assert len(mine) == len(yours) == 2
    assert sorted(np.concatenate(mine + yours)) == sorted([*range(70), *mine[0]])  # the first once more


def test_the_rate_rises_reaches_its_peak_and_falls() -> None:
    assert [rate_factor(step, 10, 0.2, "linear") for step in (0, 1, 2, 6, 9)] == [0.5, 1.0, 1.0, 0.5, 0.125]
    assert rate_factor(6, 10, 0.2, "cosine") == pytest.approx(0.5)
    assert rate_factor(9, 10, 0.0, "constant") == 1.0
    assert rate_factor(0, 1, 0.1, "linear") == 1.0
