"""Every loss against sentence-transformers' own, and the contract that a new entry signs up for."""

import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as peer
from torch import nn

from ranker.registry import UnknownNameError
from ranker.training.losses import LOSSES, check_loss, loss_options

SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.5, -2.0]])
LABELS = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
GRADED = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
ALL = torch.ones(2, 3, dtype=torch.bool)


class Recorded(CrossEncoder):
    """A cross-encoder that answers with scores written down beforehand."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, scores: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.scores, self.given = scores.flatten(), 0

    def preprocess(self, pairs: list[tuple[str, str]], **_: object) -> dict[str, torch.Tensor]:
        start, self.given = self.given, self.given + len(pairs)
        return {"scores": self.scores[start : self.given]}

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"scores": inputs["scores"][:, None]}


def lists(labels: torch.Tensor) -> tuple[list[list], list[torch.Tensor]]:
    return [["q"] * len(labels), [["d"] * labels.shape[1]] * len(labels)], list(labels)


def test_bce_is_the_peers() -> None:
    expected = peer.BinaryCrossEntropyLoss(Recorded(SCORES), pos_weight=torch.tensor(2.0))(
        [["q"] * 6, ["d"] * 6], LABELS.flatten()
    )
    assert LOSSES["bce"](SCORES, LABELS, ALL, pos_weight=2.0) == pytest.approx(expected.item())


@pytest.mark.parametrize(("name", "ours", "theirs"), [
    ("ranknet", {}, lambda model: peer.RankNetLoss(model, reduction_log="natural")),
    ("listnet", {}, peer.ListNetLoss),
])  # fmt: skip
def test_listwise_losses_are_the_peers(name: str, ours: dict, theirs: type) -> None:
    inputs, labels = lists(GRADED)
    assert LOSSES[name](SCORES, GRADED, ALL, **ours) == pytest.approx(theirs(Recorded(SCORES))(inputs, labels).item())


def test_mse_is_the_peers() -> None:
    expected = peer.MSELoss(Recorded(SCORES))([["q"] * 6, ["d"] * 6], GRADED.flatten())
    assert LOSSES["mse"](SCORES, GRADED, ALL) == pytest.approx(expected.item())


def test_margin_mse_is_the_peers() -> None:
    teacher = torch.tensor([[3.0, 1.0, 0.0], [2.5, 2.0, 1.0]])
    columns = [["q", "q"], ["p", "p"], ["n", "n"], ["n", "n"]]
    model = Recorded(SCORES.T)  # the peer asks for the positives of all queries first
    expected = peer.MarginMSELoss(model)(columns, teacher)
    assert LOSSES["margin_mse"](SCORES, teacher, ALL) == pytest.approx(expected.item())


def test_lce_is_cross_entropy_of_the_positive_in_its_group() -> None:
    expected = nn.functional.cross_entropy(SCORES, torch.tensor([0, 0]))
    assert LOSSES["lce"](SCORES, LABELS, ALL) == pytest.approx(expected.item())


def test_lce_sets_each_of_two_positives_against_the_negatives_alone() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    one_by_one = [nn.functional.cross_entropy(SCORES[:1, [place, 2]], torch.tensor([0])).item() for place in (0, 1)]
    assert LOSSES["lce"](SCORES[:1], labels, ALL[:1]) == pytest.approx(sum(one_by_one) / 2)


def test_margin_is_torchs_ranking_loss_over_the_pairs() -> None:
    better, worse = SCORES[:, :1].expand(2, 2).flatten(), SCORES[:, 1:].flatten()
    expected = nn.MarginRankingLoss(margin=1.0)(better, worse, torch.ones(4))
    assert LOSSES["margin"](SCORES, LABELS, ALL) == pytest.approx(expected.item())


@pytest.mark.parametrize("name", list(LOSSES))
def test_contract(name: str) -> None:
    loss = LOSSES[name]
    scores = torch.tensor([[0.2, -1.0, 0.5, 9.0], [0.0, 1.5, -2.0, 0.3]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 0.0, 5.0], [0.0, 1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    value = loss(scores, labels, mask)
    value.backward()
    assert value.shape == () and value.isfinite()
    assert scores.grad.isfinite().all() and scores.grad[0, :3].abs().sum() > 0
    assert scores.grad[0, 3] == 0  # behind the mask

    changed = scores.detach().clone()
    changed[0, 3] = -100.0
    assert loss(changed, labels, mask) == value
    order = torch.tensor([2, 0, 3, 1])
    assert loss(scores[:, order], labels[:, order], mask[:, order]).item() == pytest.approx(value.item(), rel=1e-6)
    alone = (loss(scores[:1, :3], labels[:1, :3], mask[:1, :3]) + loss(scores[1:], labels[1:], mask[1:])) / 2
    assert alone.item() == pytest.approx(value.item(), rel=1e-6)  # groups count the same, padding does not
    # Most want the right order, far apart; these three a teacher's values.
    assert loss(labels if name in ("listnet", "mse", "margin_mse") else 5 * labels, labels, mask) < value
    nothing = loss(scores, torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool))
    assert nothing == 0


def test_options_are_checked_by_name() -> None:
    assert loss_options("bce") == {"pos_weight": 1.0}
    check_loss("bce", {"pos_weight": 5.0})
    with pytest.raises(ValueError, match="did you mean 'pos_weight'"):
        check_loss("bce", {"pos_wieght": 5.0})
    with pytest.raises(UnknownNameError, match="did you mean 'lce'"):
        check_loss("lcee", {})
