"""Every loss against sentence-transformers' own, and the contract that a new entry signs up for."""

from collections.abc import Callable
from itertools import permutations
from typing import get_args

import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as peer
from sentence_transformers.cross_encoder.losses.lambda_loss import (
    LambdaRankScheme,
    NDCGLoss1Scheme,
    NDCGLoss2PPScheme,
    NDCGLoss2Scheme,
    NoWeightingScheme,
)
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from ranker.registry import UnknownNameError
from ranker.training.losses import (
    CACHED,
    DISTILLATION,
    IN_BATCH,
    LOSSES,
    Scheme,
    check_loss,
    loss_options,
)

SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.5, -2.0]])
LABELS = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
GRADED = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
ALL = torch.ones(2, 3, dtype=torch.bool)
# Groups of 4, 2 and 3 documents.
SCORE_LISTS = [torch.tensor(row) for row in ([0.3, -1.2, 0.9, 2.0], [1.1, 0.4], [-0.7, 0.6, 0.1])]
STRICT = [torch.tensor(row) for row in ([2.0, 0.0, 1.0, 3.0], [0.0, 1.0], [1.0, 3.0, 0.0])]
TIED = [torch.tensor(row) for row in ([2.0, 0.0, 1.0, 0.0], [0.0, 1.0], [1.0, 1.0, 0.0])]
# Those that are smallest where scores are the labels themselves, and so not where they are far apart.
COPY_LABELS = {"listnet", "mse", "margin_mse"}


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


def lists(labels: torch.Tensor | list[torch.Tensor]) -> tuple[list[list], list[torch.Tensor]]:
    return [["q"] * len(labels), [["d"] * len(row) for row in labels]], list(labels)


def padded(rows: list[torch.Tensor], value: float = 0.0) -> torch.Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)


def mask_of(rows: list[torch.Tensor]) -> torch.Tensor:
    return padded([torch.ones_like(row) for row in rows]).bool()


def test_bce_is_the_peers() -> None:
    expected = peer.BinaryCrossEntropyLoss(Recorded(SCORES), pos_weight=torch.tensor(2.0))(
        [["q"] * 6, ["d"] * 6], LABELS.flatten()
    )
    assert LOSSES["bce"](SCORES, LABELS, ALL, pos_weight=2.0) == pytest.approx(expected.item())


def lambda_peer(scheme: nn.Module, **options: float) -> Callable[[CrossEncoder], nn.Module]:
    return lambda model: peer.LambdaLoss(model, weighting_scheme=scheme, **options)


LISTWISE = [
    ("ranknet", {}, lambda model: peer.RankNetLoss(model, reduction_log="natural")),
    ("ranknet", {"sigma": 2.0}, lambda model: peer.RankNetLoss(model, sigma=2.0, reduction_log="natural")),
    ("listnet", {}, peer.ListNetLoss),
    ("listmle", {}, lambda model: peer.ListMLELoss(model, respect_input_order=False)),
    ("p_listmle", {}, lambda model: peer.PListMLELoss(model, respect_input_order=False)),
    ("adr_mse", {}, peer.ADRMSELoss),
    ("adr_mse", {"alpha": 3.0}, lambda model: peer.ADRMSELoss(model, alpha=3.0)),
    ("lambda", {}, peer.LambdaLoss),
    ("lambda", {"k": 2, "sigma": 0.5, "mu": 4.0}, lambda_peer(NDCGLoss2PPScheme(mu=4.0), k=2, sigma=0.5)),
    ("lambda", {"k": 1, "scheme": "none"}, lambda_peer(NoWeightingScheme(), k=1)),
    ("lambda", {"k": 1, "scheme": "lambdarank"}, lambda_peer(LambdaRankScheme(), k=1)),
    ("lambda", {"scheme": "ndcg_loss2"}, lambda_peer(NDCGLoss2Scheme())),
]


@pytest.mark.parametrize(("name", "ours", "theirs"), LISTWISE)
def test_listwise_losses_are_the_peers(name: str, ours: dict, theirs: Callable) -> None:
    inputs, labels = lists(GRADED)
    assert LOSSES[name](SCORES, GRADED, ALL, **ours) == pytest.approx(theirs(Recorded(SCORES))(inputs, labels).item())


@pytest.mark.parametrize(("name", "ours", "theirs"), LISTWISE)
@pytest.mark.parametrize("labels", [STRICT, TIED], ids=["strict", "tied"])
def test_listwise_losses_are_the_peers_on_groups_of_any_size(
    name: str, ours: dict, theirs: Callable, labels: list[torch.Tensor]
) -> None:
    if name.endswith("listmle") and labels is TIED:
        pytest.skip("the peer orders ties as they come")
    alone = [theirs(Recorded(row))(*lists([target])).item() for row, target in zip(SCORE_LISTS, labels, strict=True)]
    found = LOSSES[name](padded(SCORE_LISTS, 7.0), padded(labels, 9.0), mask_of(labels), **ours)
    assert found == pytest.approx(sum(alone) / 3)


def test_ndcg_loss1_learns_as_the_peers() -> None:
    """The peer also pairs each document with itself, which adds a constant and counts in the mean."""
    ours, theirs = SCORES.clone().requires_grad_(), SCORES.clone().requires_grad_()
    LOSSES["lambda"](ours, GRADED, ALL, scheme="ndcg_loss1").backward()
    lambda_peer(NDCGLoss1Scheme())(Recorded(theirs))(*lists(GRADED)).backward()
    assert torch.allclose(ours.grad * 6 / 9, theirs.grad)
    assert LOSSES["lambda"](SCORES, torch.ones(2, 3), ALL, scheme="ndcg_loss1") == 0  # nothing to learn


def test_lambda_of_two_documents_by_hand() -> None:
    # The worse stands first: ranks 1 and 2, gain 1 of an ideal 1, discounts 1 and 1 / log2(3).
    swap = 1 - 1 / torch.log2(torch.tensor(3.0)).item()
    scores, labels, mask = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]), ALL[:1, :2]
    for scheme, weight in {"none": 1.0, "lambdarank": swap, "ndcg_loss2": swap, "ndcg_loss2pp": 11 * swap}.items():
        assert LOSSES["lambda"](scores, labels, mask, scheme=scheme) == pytest.approx(weight)  # a toss-up is one bit
    # ndcg_loss1: the relevant one is second, and is paired with the other; the other has no gain.
    assert LOSSES["lambda"](scores, labels, mask, scheme="ndcg_loss1") == pytest.approx((1 - swap) / 2)


def test_lambda_looks_at_the_first_k() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0]], requires_grad=True)
    LOSSES["lambda"](scores, torch.tensor([[0.0, 0.0, 1.0]]), ALL[:1], k=1).backward()
    assert scores.grad[0, 1] == 0 and scores.grad[0, 0] > 0 > scores.grad[0, 2]


def test_lambda_takes_labels_as_large_as_logits() -> None:
    labels = torch.tensor([[300.0, 299.0, -40.0]])
    assert LOSSES["lambda"](SCORES[:1], labels, ALL[:1]).isfinite()


def test_listmle_lets_equal_documents_not_compete() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    one_by_one = [nn.functional.cross_entropy(SCORES[:1, [place, 2]], torch.tensor([0])).item() for place in (0, 1)]
    assert LOSSES["listmle"](SCORES[:1], labels, ALL[:1]) == pytest.approx(sum(one_by_one))
    # Ranks 1 and 2 of 3 count 3 and 1 of 4, and the two share them.
    assert LOSSES["p_listmle"](SCORES[:1], labels, ALL[:1]) == pytest.approx(sum(one_by_one) / 2)


def test_p_listmle_of_long_groups_is_the_peers() -> None:
    scores = torch.linspace(-1, 1, 200).cos()[None]
    labels = torch.arange(200.0)[None]
    expected = peer.PListMLELoss(Recorded(scores), respect_input_order=False)(*lists(labels))
    assert LOSSES["p_listmle"](scores, labels, torch.ones(1, 200, dtype=torch.bool)) == pytest.approx(expected.item())


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


@pytest.mark.parametrize("name", sorted(IN_BATCH))
@pytest.mark.parametrize("scale", [10.0, 3.0])
def test_multiple_negatives_is_the_peers_with_the_documents_of_the_other_query(name: str, scale: float) -> None:
    # A positive, both documents of the other query, and a hard negative; the peer asks column by column.
    scores = torch.tensor([[2.0, -1.0, 0.5, 0.1], [0.0, 1.5, -2.0, 0.3]])
    columns = [["q1", "q2"], ["p1", "p2"], ["n1", "n2"]]
    losses = {
        "multiple_negatives": peer.MultipleNegativesRankingLoss,
        "cached_multiple_negatives": peer.CachedMultipleNegativesRankingLoss,
    }
    expected = losses[name](Recorded(scores.T), num_negatives=None, scale=scale)(columns, None)
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2)
    assert LOSSES[name](scores, labels, labels >= 0, scale=scale) == pytest.approx(expected.item())


def test_multiple_negatives_is_the_peers_on_groups_of_any_size() -> None:
    alone = [
        peer.MultipleNegativesRankingLoss(Recorded(row))([["q"], *[["d"]] * len(row)], None).item()
        for row in SCORE_LISTS
    ]
    labels = [torch.tensor([1.0] + [0.0] * (len(row) - 1)) for row in SCORE_LISTS]
    found = LOSSES["multiple_negatives"](padded(SCORE_LISTS, 7.0), padded(labels), mask_of(labels))
    assert found == pytest.approx(sum(alone) / 3)


def test_margin_is_torchs_ranking_loss_over_the_pairs() -> None:
    better, worse = SCORES[:, :1].expand(2, 2).flatten(), SCORES[:, 1:].flatten()
    expected = nn.MarginRankingLoss(margin=1.0)(better, worse, torch.ones(4))
    assert LOSSES["margin"](SCORES, LABELS, ALL) == pytest.approx(expected.item())


def test_triplet_is_torchs_of_each_positive_and_the_hardest_negative() -> None:
    scores = torch.tensor([[2.0, 0.2, 0.5, -1.0]])
    expected = nn.TripletMarginWithDistanceLoss(distance_function=lambda _, document: -document, margin=1.0)(
        torch.zeros(2), torch.tensor([2.0, 0.2]), torch.tensor([0.5, 0.5])
    )
    labels = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    assert LOSSES["triplet"](scores, labels, labels >= 0) == pytest.approx(expected.item())
    assert expected.item() == pytest.approx((0 + 1.3) / 2)
    assert LOSSES["triplet"](SCORES[:, :2], LABELS[:, :2], ALL[:, :2], margin=3.0) == LOSSES["margin"](
        SCORES[:, :2], LABELS[:, :2], ALL[:, :2], margin=3.0
    )


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
    alone = (loss(scores[:1, :3], labels[:1, :3], mask[:1, :3]) + loss(scores[1:], labels[1:], mask[1:])) / 2
    assert alone.item() == pytest.approx(value.item(), rel=1e-6)  # groups count the same, padding does not
    # Most want the right order, far apart.
    assert loss(labels if name in COPY_LABELS else 5 * labels, labels, mask) < value
    nothing = loss(scores, torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool))
    assert nothing == 0


CASES = [*((name, {}) for name in LOSSES), *(("lambda", {"k": 2.0, "scheme": scheme}) for scheme in get_args(Scheme))]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("scores", [[0.5, -1.0, 0.5, 0.2, -1.0], [0.0] * 5], ids=["some alike", "all alike"])
def test_no_order_of_the_documents_matters(name: str, options: dict, scores: list[float]) -> None:
    """Neither to the loss nor to the gradient of a document, also where scores and labels are equal."""
    labels, there = torch.tensor([2.0, 1.0, 0.0, 9.0, 0.0]), torch.tensor([True, True, True, False, True])
    orders = torch.tensor(list(permutations(range(5))))
    given = torch.tensor(scores)[orders].requires_grad_()
    values = torch.stack([
        LOSSES[name](given[row : row + 1], labels[order][None], there[order][None], **options)
        for row, order in enumerate(orders)
    ])  # fmt: skip
    assert values.detach().numpy() == pytest.approx(values[0].item(), rel=1e-6)
    values.sum().backward()
    gradients = torch.empty_like(given).scatter_(1, orders, given.grad)
    assert torch.allclose(gradients, gradients[0].expand_as(gradients), atol=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_gradient_is_that_of_the_loss(name: str, options: dict) -> None:
    scores = torch.tensor(
        [[0.2, -1.1, 0.7, 1.6], [0.1, 1.5, -2.0, 0.3], [0.4, 0.9, -0.3, 0.8]], dtype=torch.float64, requires_grad=True
    )
    labels = torch.tensor([[2.0, 0.0, 1.0, 5.0], [0.0, 1.0, 0.0, 3.0], [1.0] * 4], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False], [True] * 4, [False] * 4])
    assert torch.autograd.gradcheck(lambda given: LOSSES[name](given, labels, mask, **options), scores)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_extreme_scores_have_finite_gradients(name: str, options: dict) -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, -1e4, 1e4]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 3, [True] * 3, [False] * 3])
    value = LOSSES[name](scores, labels, mask, **options)
    value.backward()
    assert value.isfinite() and scores.grad.isfinite().all()
    assert (scores.grad[2] == 0).all()  # a row without documents


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - DISTILLATION - {"bce", "listnet"}))
@pytest.mark.parametrize("labels", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], ids=["no positive", "no negative"])
def test_a_group_of_equal_labels_teaches_no_order(name: str, labels: list[float]) -> None:
    scores = SCORES[:1].clone().requires_grad_()
    value = LOSSES[name](scores, torch.tensor([labels]), ALL[:1])
    value.backward()
    assert value == 0 and (scores.grad == 0).all()


def test_kinds_are_losses() -> None:
    assert CACHED < IN_BATCH < LOSSES.keys() and LOSSES.keys() > DISTILLATION


def test_options_are_checked_by_name() -> None:
    assert loss_options("bce") == {"pos_weight": 1.0}
    assert loss_options("lambda") == {"k": 0.0, "sigma": 1.0, "mu": 10.0, "scheme": "ndcg_loss2pp"}
    check_loss("bce", {"pos_weight": 5.0})
    check_loss("lambda", {"k": 10, "scheme": "lambdarank"})
    with pytest.raises(ValueError, match="did you mean 'pos_weight'"):
        check_loss("bce", {"pos_wieght": 5.0})
    with pytest.raises(UnknownNameError, match="did you mean 'lce'"):
        check_loss("lcee", {})
    with pytest.raises(
        ValueError, match=r"takes a number as 'k', not 'ten'; .* 'lambdarnk'; did you mean 'lambdarank'"
    ):
        check_loss("lambda", {"k": "ten", "scheme": "lambdarnk"})
