"""Losses of reward models and DPO: numbers worked by hand, symmetries, TRL's trainers on the same scores and log-probs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from r1_lightning.functional.preference_loss import (
    DPO,
    IPO,
    BradleyTerry,
    PointWise,
    PolicyPreference,
    bradley_terry_loss,
    margins,
    wins,
)
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import LossOutput

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


def assert_they_add_up(shares: Sequence[LossOutput], whole: LossOutput, inputs: Tensor) -> None:
    """Loss and metrics of the shares sum to the whole's, and so do the gradients of `inputs`."""
    together = torch.stack([share.loss for share in shares]).sum()
    torch.testing.assert_close(together, whole.loss)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(torch.stack([share.metrics[name] for share in shares]).sum(), value)
    found, expected = (torch.autograd.grad(loss, inputs)[0] for loss in (together, whole.loss))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("objective", [BradleyTerry(), PointWise()])
def test_shares_of_any_size_add_up_to_the_whole(objective: BradleyTerry | PointWise) -> None:
    """With the count of all sequences, loss and metrics of 6, 2 and no sequences sum to those of 8, and so do the gradients."""
    scores = torch.randn(8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, count = LABELS.repeat(2), torch.tensor(8)
    whole = objective(scores, labels)
    shares = [objective(scores[part], labels[part], count) for part in (slice(0, 6), slice(6, 8), slice(8, 8))]
    assert_they_add_up(shares, whole, scores)


class _Given(nn.Module):
    """A model that returns the logits it was given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, **inputs: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits)


def test_against_trl() -> None:
    """`RewardTrainer.compute_loss` itself, on the same scores: TRL puts all chosen ones first."""
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


# Two pairs: log(pi / pi_ref) of chosen and rejected in turn, and their lengths in tokens.
LOG_RATIOS, LENGTHS = torch.tensor([2.0, -3.0, 1.0, 4.0]), torch.tensor([4.0, 6.0, 2.0, 8.0])


def test_dpo_by_hand() -> None:
    # beta 0.2: rewards 0.4, -0.6 and 0.2, 0.8; margins 1 and -0.6.
    # log(1 + e^-1) = 0.3132617; log(1 + e^0.6) = 1.0374880; the mean is 0.6753748.
    output = DPO(kl_coef=0.2)(LOG_RATIOS, LENGTHS)
    assert output.loss.item() == pytest.approx(0.6753748, abs=1e-6)
    assert {name: pytest.approx(value.item(), abs=1e-6) for name, value in output.metrics.items()} == {
        "dpo/reward_accuracy": 0.5,
        "dpo/margin": 0.2,
        "dpo/chosen_reward": 0.3,
        "dpo/rejected_reward": 0.1,
    }


def test_conservative_dpo_by_hand() -> None:
    # A tenth of the pairs are the wrong way round: log(1 + e^1) = 1.3132617 and log(1 + e^-0.6) = 0.4374880 weigh 0.1.
    # 0.9 * 0.3132617 + 0.1 * 1.3132617 = 0.4132617; 0.9 * 1.0374880 + 0.1 * 0.4374880 = 0.9774880; the mean is 0.6953748.
    loss = DPO(kl_coef=0.2, label_smoothing=0.1)(LOG_RATIOS, LENGTHS).loss
    assert loss.item() == pytest.approx(0.6953748, abs=1e-6)


def test_ipo_by_hand() -> None:
    # Per token 0.5, -0.5 and 0.5, 0.5; 1 / (2 * 0.2) = 2.5: (1 - 2.5)^2 = 2.25, (0 - 2.5)^2 = 6.25, mean 4.25.
    output = IPO(kl_coef=0.2)(LOG_RATIOS, LENGTHS)
    assert output.loss.item() == pytest.approx(4.25, abs=1e-6)
    assert output.metrics["dpo/margin"].item() == pytest.approx(0.2, abs=1e-6)  # of whole responses, as DPO's


def test_the_gradient_of_dpo_weighs_a_pair_by_how_wrong_it_is() -> None:
    # d loss / d log-ratio = -+ beta sigmoid(r_rejected - r_chosen) / pairs: at margin 1 sigmoid(-1) = 0.2689414, times 0.2 / 2.
    log_ratios = LOG_RATIOS.clone().requires_grad_()
    DPO(kl_coef=0.2)(log_ratios, LENGTHS).loss.backward()
    assert log_ratios.grad is not None
    # At margin -0.6 sigmoid(0.6) = 0.6456563.
    expected = [-0.02689414, 0.02689414, -0.06456563, 0.06456563]
    assert log_ratios.grad.tolist() == pytest.approx(expected, abs=1e-7)


def test_the_policy_that_is_its_reference() -> None:
    zeros = torch.zeros(4)
    assert DPO()(zeros, LENGTHS).loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert DPO(label_smoothing=0.3)(zeros, LENGTHS).loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert IPO(kl_coef=0.1)(zeros, LENGTHS).loss.item() == pytest.approx(25.0)  # (1 / 0.2)^2
    assert DPO()(zeros, LENGTHS).metrics["dpo/reward_accuracy"].item() == 0.5
    huge = torch.tensor([-1e4, 1e4, -1e4, 1e4])
    assert DPO(kl_coef=1.0)(huge, LENGTHS).loss.item() == 2e4


@pytest.mark.parametrize("objective", [DPO(0.3), DPO(0.3, 0.2), IPO(0.3)])
def test_shares_of_pairs_add_up_to_the_whole(objective: PolicyPreference) -> None:
    """With the count of all responses, loss, metrics and gradients of 3, 1 and no pairs sum to those of 4."""
    log_ratios = torch.randn(8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    lengths, count = LENGTHS.repeat(2), torch.tensor(8)
    whole = objective(log_ratios, lengths)
    shares = [objective(log_ratios[part], lengths[part], count) for part in (slice(0, 6), slice(6, 8), slice(8, 8))]
    assert_they_add_up(shares, whole, log_ratios)


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        (DPO, {"kl_coef": 0.0}, "stage.objective.kl_coef=0.0"),
        (IPO, {"kl_coef": -1.0}, "stage.objective.kl_coef=-1.0"),
        (DPO, {"label_smoothing": -0.1}, "stage.objective.label_smoothing=-0.1"),
        (DPO, {"label_smoothing": 0.6}, "stage.objective.label_smoothing=0.6"),
    ],
)
def test_settings_out_of_range(kind: type, settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        kind(**settings)


def trl_dpo(policy: Tensor, reference: Tensor, mask: Tensor, kind: str, **settings: Any) -> tuple[Tensor, Any]:
    """`DPOTrainer._compute_loss` itself, on log-probs S x T, chosen ones first; returns the loss and its metrics."""
    from trl import DPOTrainer

    def model(values: Tensor) -> Any:
        names = ("entropy", "mean_logits", "is_top1")  # logged by TRL, and not compared
        others = {name: torch.zeros(values.shape, dtype=torch.bool) for name in names}
        return lambda **_: SimpleNamespace(log_probs=values, **others)

    given = {"beta": 0.1, "label_smoothing": 0.0, "f_divergence_type": "reverse_kl", "loss_types": [kind]}
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device=policy.device, gather=lambda x: x, gather_for_metrics=lambda x: x),
        loss_weights=[1.0],
        ld_alpha=None,
        precompute_ref_logps=True,
        use_weighting=False,
        aux_loss_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **(given | settings),
    )
    chosen, rejected = reference.sum(1).chunk(2)
    inputs = {
        "input_ids": torch.zeros(mask.shape, dtype=torch.long),
        "attention_mask": torch.ones(mask.shape),
        "completion_mask": mask,
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    return DPOTrainer._compute_loss(trainer, model(policy), inputs, False), trainer._metrics["train"]


@pytest.mark.parametrize(
    "objective, kind",
    [(DPO(0.3), "sigmoid"), (IPO(0.3), "ipo"), (DPO(0.3, 0.2), "aot")],
    ids=["DPO", "IPO", "conservative DPO"],
)
def test_dpo_against_trl(objective: PolicyPreference, kind: str) -> None:
    """Loss, gradient and metrics. TRL's "aot" sorts a batch's pairs; of a single pair it is DPO with smoothed labels."""
    draw = torch.Generator().manual_seed(3)
    mask = torch.zeros(2, 8, dtype=torch.long)
    mask[0, 3:7], mask[1, 3:8] = 1, 1  # a prompt of three tokens, four and five tokens of response
    shifted = mask[:, 1:].double()
    policy, reference = (-torch.rand(2, 7, generator=draw, dtype=torch.float64) * 3 * shifted for _ in range(2))
    policy.requires_grad_()
    settings = {"beta": 0.3, "label_smoothing": getattr(objective, "label_smoothing", 0.0)}
    theirs, measured = trl_dpo(policy, reference, mask, kind, **settings)
    log_ratios, lengths = (policy - reference).sum(1), shifted.sum(1)
    ours = objective(log_ratios, lengths)
    torch.testing.assert_close(ours.loss, theirs, rtol=1e-12, atol=1e-12)
    found, expected = (torch.autograd.grad(loss, policy, retain_graph=True)[0] for loss in (ours.loss, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    names = {
        "reward_accuracy": "accuracies",
        "margin": "margins",
        "chosen_reward": "chosen",
        "rejected_reward": "rejected",
    }
    for name, other in names.items():
        assert ours.metrics[f"dpo/{name}"].item() == pytest.approx(measured[f"rewards/{other}"][0], abs=1e-12)
