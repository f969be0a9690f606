"""Training a reward model: the loss by loops over single texts, accumulation, what learns, and data of the wrong kind."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.functional.preference_loss import DPO, BradleyTerry, PointWise
from r1_lightning.rollout.preference_rows import PreferenceRow, collate_preferences
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.reward_model import RewardModelModule
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import PreferenceBatch, TokenBatch
from tests.support.miniature import EOS, PAD, Backward, Batches, backbone, backwards, trainer

PAIRS = [
    ((1, 2, 3, EOS), (1, 2, 4, EOS)),
    ((5, 6, EOS), (5, 7, 7, EOS)),
    ((8, 1, EOS), (8, 2, EOS)),
    ((9, EOS), (9, 9, EOS)),
]


def rows(paired: bool = True) -> list[PreferenceRow]:
    if paired:
        return [PreferenceRow(pair, (1.0, 0.0)) for pair in PAIRS]
    return [PreferenceRow((text,), (float(label),)) for pair in PAIRS for text, label in zip(pair, (1, 0), strict=True)]


def batch(items: list[PreferenceRow]) -> PreferenceBatch:
    return collate_preferences(items, 10, PAD)


def module(objective: Any = None, **settings: Any) -> RewardModelModule:
    optim = AdamWConfig(lr=0.01, weight_decay=0.0)
    made = RewardModelModule(backbone(), optim, objective or BradleyTerry(), max_steps=1, **settings)
    torch.nn.init.normal_(made.backbone.score.weight, generator=torch.Generator().manual_seed(0))
    return made


def step(made: RewardModelModule, batches: list[PreferenceBatch], folder: Path, **settings: Any) -> Backward:
    return backwards(made, batches, folder, **settings)[0]


@torch.no_grad()
def score_alone(made: RewardModelModule, text: tuple[int, ...]) -> float:
    model = copy.deepcopy(made.backbone).eval()
    hidden = model.backbone.hidden(TokenBatch.of_whole_rows(torch.tensor([text]))).hidden[0, -1]
    return math.fsum((hidden.double() * model.score.weight[0].double()).tolist())


def test_pairwise_by_loops(tmp_path: Path) -> None:
    made = module()
    margins = [score_alone(made, chosen) - score_alone(made, rejected) for chosen, rejected in PAIRS]
    loss = math.fsum(math.log1p(math.exp(-margin)) for margin in margins) / 4
    done = step(made, [batch(rows())], tmp_path)
    assert done.loss == pytest.approx(loss, rel=2e-6)
    assert done.metrics["train/margin"] == pytest.approx(math.fsum(margins) / 4, abs=1e-6)
    assert done.metrics["train/pair_accuracy"] == sum(margin > 0 for margin in margins) / 4
    assert min(abs(margin) for margin in margins) > 0.01


def test_point_wise_by_loops_whether_pairs_or_not(tmp_path: Path) -> None:
    made = module(PointWise())
    scores = [score_alone(made, text) for pair in PAIRS for text in pair]
    losses = [math.log1p(math.exp(-s if place % 2 == 0 else s)) for place, s in enumerate(scores)]
    for number, items in enumerate((rows(), rows(paired=False))):
        done = step(module(PointWise()), [batch(items)], tmp_path / str(number))
        assert done.loss == pytest.approx(math.fsum(losses) / 8, rel=2e-6)


@pytest.mark.parametrize("objective", [BradleyTerry(), PointWise()])
def test_two_micro_batches_are_one_batch(tmp_path: Path, objective: Any) -> None:
    whole = step(module(objective), [batch(rows())], tmp_path / "a")
    halves = step(module(objective), [batch(rows()[:2]), batch(rows()[2:])], tmp_path / "b", accumulate_grad_batches=2)
    assert whole.gradients.keys() == halves.gradients.keys()
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(halves.gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for name in ("train/loss", *(("train/margin",) if objective.is_paired else ("train/score_mean",))):
        assert halves.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-5, abs=1e-6)


def test_backbone_and_head_learn_and_the_language_head_does_not(tmp_path: Path) -> None:
    made = module()
    before = copy.deepcopy(made.backbone.state_dict())
    done = step(made, [batch(rows())], tmp_path)
    assert "score.weight" in done.gradients and "backbone.embedding.weight" in done.gradients
    assert not any(name.startswith(("backbone.head", "backbone.mtp")) for name in done.gradients)
    after = made.backbone.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert "score.weight" in changed and any("attention" in name for name in changed)
    assert "backbone.head.weight" not in changed and not any("expert_bias" in name for name in changed)


def test_the_experts_are_balanced_where_asked(tmp_path: Path) -> None:
    made = module(bias_update_speed=0.25)
    before = made.backbone.expert_bias()
    step(made, [batch(rows())], tmp_path)
    moved = (made.backbone.expert_bias() - before).abs()
    # Every bias of the trunk's mixture moves by the speed, or stays where its load is the mean; MTP's have no load.
    assert set(moved.flatten().tolist()) <= {0.0, 0.25} and moved[0].max() == 0.25


def test_it_learns_what_it_is_shown(tmp_path: Path) -> None:
    made = RewardModelModule(backbone(), AdamWConfig(lr=0.01, weight_decay=0.0), BradleyTerry(), max_steps=40)
    trainer(40, tmp_path).fit(made, Batches([batch(rows())] * 40))
    margins = [score_alone(made, chosen) - score_alone(made, rejected) for chosen, rejected in PAIRS]
    assert min(margins) > 1.0  # sigmoid(1) = 0.73 at least, from 0.5


def test_losses_of_policies_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"stage.objective='DPO' is not allowed: it must be a loss of scores"):
        module(DPO())


def test_pairs_are_needed_for_the_pairwise_loss(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"stage.objective='BradleyTerry' is not allowed: it needs pairs"):
        step(module(), [batch(rows(paired=False))], tmp_path)
