"""Bradley-Terry and point-wise losses: numbers worked by hand, symmetries, TRL's trainer on the same scores."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from r1_lightning.functional.preference_loss import BradleyTerry, PointWise, bradley_terry_loss, margins, wins

LABELS = torch.tensor([1.0, 0.0, 1.0, 0.0])


def test_bradley_terry_by_hand() -> None:
    # Margins 1 - 0 = 1 and -1 - 2 = -3. -log sigmoid(1) = log(1 + e^-1) = 0.3132617; -log sigmoid(-3) = log(1 + e^3) = 3.0485874.
    scores = torch.tensor([1.0, 0.0, -1.0, 2.0])
    assert margins(scores).tolist() == [1.0, -3.0]
    output = BradleyTerry()(scores, LABELS)
    assert output.loss.item() == pytest.approx((0.3132617 + 3.0485874) / 2, abs=1e-6)
    assert {name: value.item() for name, value in output.metrics.items()} == {
        "train/pair_accuracy": 0.5,
        "train/margin": -1.0,
    }


def test_a_tie_wins_half() -> None:
    assert wins(torch.tensor([0.0, 2.0, -0.5])).tolist() == [0.5, 1.0, 0.0]


def test_the_gradient_of_a_margin_is_minus_the_chance_of_being_wrong() -> None:
    # d/dm -log sigmoid(m) = -sigmoid(-m): at m = 1, -1 / (1 + e) = -0.2689414; the mean over 2 pairs halves it.
    margin = torch.tensor([1.0, 0.0], requires_grad=True)
    bradley_terry_loss(margin).backward()
    assert margin.grad is not None
    assert margin.grad.tolist() == pytest.approx([-0.2689414 / 2, -0.25], abs=1e-6)


def test_pairs_see_only_differences_and_single_responses_the_level() -> None:
    scores = torch.tensor([0.3, -0.2, 1.1, 0.9])
    pairs, single = BradleyTerry(), PointWise()
    torch.testing.assert_close(pairs(scores + 5, LABELS).loss, pairs(scores, LABELS).loss)
    assert abs(single(scores + 5, LABELS).loss - single(scores, LABELS).loss) > 1


def test_no_knowledge_costs_ln_2_and_huge_scores_no_nan() -> None:
    zeros, huge = torch.zeros(4), torch.tensor([-1e4, 1e4, -1e4, 1e4])
    for objective in (BradleyTerry(), PointWise()):
        assert objective(zeros, LABELS).loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert BradleyTerry()(huge, LABELS).loss.item() == 2e4
    assert PointWise()(huge, LABELS).loss.item() == 1e4


def test_point_wise_by_hand() -> None:
    # good with score 2: log(1 + e^-2) = 0.1269280; bad with score 1: log(1 + e) = 1.3132617; mean 0.7200949. Right, wrong.
    output = PointWise()(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert output.loss.item() == pytest.approx(0.7200949, abs=1e-6)
    assert output.metrics["train/accuracy"].item() == 0.5 and output.metrics["train/score_mean"].item() == 1.5


def test_halves_of_a_batch_average_to_the_whole() -> None:
    scores, labels = torch.randn(8, generator=torch.Generator().manual_seed(0)), LABELS.repeat(2)
    for objective in (BradleyTerry(), PointWise()):
        halves = [objective(scores[i : i + 4], labels[i : i + 4]).loss for i in (0, 4)]
        torch.testing.assert_close(torch.stack(halves).mean(), objective(scores, labels).loss)


@pytest.mark.parametrize("objective", [BradleyTerry(), PointWise()])
def test_shares_of_any_size_add_up_to_the_whole(objective: BradleyTerry | PointWise) -> None:
    """With the count of all sequences, loss and metrics of 6, 2 and no sequences sum to those of 8, and so do the gradients."""
    scores = torch.randn(8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, count = LABELS.repeat(2), torch.tensor(8)
    whole = objective(scores, labels)
    shares = [objective(scores[part], labels[part], count) for part in (slice(0, 6), slice(6, 8), slice(8, 8))]
    together = torch.stack([share.loss for share in shares]).sum()
    torch.testing.assert_close(together, whole.loss)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(torch.stack([share.metrics[name] for share in shares]).sum(), value)
    found, expected = (torch.autograd.grad(loss, scores)[0] for loss in (together, whole.loss))
    torch.testing.assert_close(found, expected)


class _Given(nn.Module):
    """A model that returns the logits it was given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, **inputs: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits)


def test_against_trl() -> None:
    """`RewardTrainer.compute_loss` itself, on the same scores: TRL puts all chosen ones first."""
    from collections import defaultdict

    from trl import RewardTrainer

    scores = torch.randn(10, generator=torch.Generator().manual_seed(1)) * 3
    chosen_first = torch.cat([scores[0::2], scores[1::2]]).unsqueeze(-1)
    accelerator = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator,
        args=SimpleNamespace(center_rewards_coefficient=None),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"attention_mask": torch.ones(10, 3)}
    theirs = RewardTrainer.compute_loss(trainer, _Given(chosen_first), inputs)
    ours = BradleyTerry()(scores, LABELS)
    torch.testing.assert_close(ours.loss, theirs, rtol=1e-6, atol=1e-7)
    measured = trainer._metrics["train"]
    assert ours.metrics["train/margin"].item() == pytest.approx(measured["margin"][0], abs=1e-6)
    assert ours.metrics["train/pair_accuracy"].item() == pytest.approx(measured["accuracy"][0], abs=1e-6)
