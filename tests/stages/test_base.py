"""What all stages share: AdamW, its schedule and clipping, and expert biases that move once per optimizer step."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.functional.expert_balance import updated_expert_bias
from r1_lightning.functional.schedules import WarmupCosine
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.types.errors import InvalidInput
from tests.support.miniature import Batches, Miniature, Spy, backbone, fingerprint, trainer


class TwoShapes(nn.Module):
    """A matrix, a vector and a frozen matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(2, 2))
        self.vector = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_decay_pulls_at_matrices_only() -> None:
    # AdamW, gradient 0: w <- w - lr * decay * w = 1 - 0.1 * 0.5 = 0.95 for matrices; 1 for the rest.
    module = TwoShapes()
    optimizer = AdamWConfig(lr=0.1, weight_decay=0.5).build(module)
    for parameter in (module.matrix, module.vector):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(module.matrix, torch.full((2, 2), 0.95), atol=1e-7)
    assert torch.equal(module.vector, torch.ones(2)) and torch.equal(module.frozen, torch.ones(2, 2))


def test_first_step_of_adam_by_hand() -> None:
    # Step 1, no decay: m / (1 - beta1) = g and v / (1 - beta2) = g^2, so w <- w - lr * g / |g| = 1 - 0.1 * sign(g).
    module = TwoShapes()
    optimizer = AdamWConfig(lr=0.1, weight_decay=0.0).build(module)
    module.matrix.grad = torch.tensor([[2.0, -3.0], [0.5, -0.1]])
    optimizer.step()
    assert torch.allclose(module.matrix, torch.tensor([[0.9, 1.1], [0.9, 1.1]]), atol=1e-6)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "optim.lr=0.0"),
        ({"lr": "0.1"}, "optim.lr='0.1'"),
        ({"beta1": 1.0}, "optim.beta1=1.0"),
        ({"beta2": 1.0}, "optim.beta2=1.0"),
        ({"beta2": -0.1}, "optim.beta2=-0.1"),
        ({"weight_decay": -1.0}, "optim.weight_decay=-1.0"),
        ({"max_grad_norm": 0.0}, "optim.max_grad_norm=0.0"),
        ({"warmup_steps": 1.5}, "optim.warmup_steps=1.5"),
        ({"final_lr_factor": 2.0}, "optim.final_lr_factor=2.0"),
    ],
)
def test_bad_optimizer_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        AdamWConfig(**{"lr": 0.1, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "stage.max_steps=0"),
        ({"bias_update_speed": -0.1}, "stage.bias_update_speed=-0.1"),
        ({"on_nonfinite": "ignore"}, "stage.on_nonfinite='ignore'"),
    ],
)
def test_bad_stage_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        PretrainModule(backbone(), AdamWConfig(lr=0.1), **{"max_steps": 1, **settings})


def test_the_learning_rate_follows_the_schedule_step_by_step(tmp_path: Path) -> None:
    optim = AdamWConfig(lr=0.01, warmup_steps=2, final_lr_factor=0.1)
    miniature = Miniature(optim=optim, max_steps=5)
    rates: list[float] = []
    spy = Spy("on_before_optimizer_step", lambda _, __, optimizer: rates.append(optimizer.param_groups[0]["lr"]))
    trainer(5, tmp_path, [spy]).fit(miniature.pretrain(), datamodule=miniature.text())
    factor = WarmupCosine(5, 2, 0.1)
    assert rates == [0.01 * factor(step) for step in range(5)]
    assert rates[0] < rates[1] == 0.01 > rates[4]


def test_clipping_shortens_the_gradient_and_keeps_its_direction(tmp_path: Path) -> None:
    limit = 0.05
    miniature = Miniature(optim=AdamWConfig(lr=0.01, max_grad_norm=limit), max_steps=1)
    seen: list[Tensor] = []

    def flat(_: Any, stage: PretrainModule, *__: Any) -> None:
        seen.append(torch.cat([p.grad.flatten().clone() for p in stage.backbone.parameters() if p.grad is not None]))

    spies = [Spy("on_before_optimizer_step", flat), Spy("on_train_batch_end", flat)]
    fit = trainer(1, tmp_path, spies)
    fit.fit(miniature.pretrain(), datamodule=miniature.text())
    before, after = seen
    assert before.norm() > 2 * limit
    assert torch.allclose(after, before * limit / before.norm(), rtol=1e-4, atol=1e-9)
    assert float(fit.callback_metrics["train/grad_norm"]) == pytest.approx(float(before.norm()), rel=1e-6)


@torch.no_grad()
def load_of(model: nn.Module, batch: Any) -> Tensor:
    """Expert load of a training forward, on a copy."""
    return copy.deepcopy(model).train().hidden(batch).expert_load


def test_load_is_summed_over_micro_batches_and_the_bias_moves_once_per_step(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=4)
    loader = Batches(list(miniature.text().train_dataloader()))
    biases, loads = [miniature.model.expert_bias()], []

    def start(_: Any, stage: PretrainModule, batch: Any, batch_idx: int) -> None:
        loads.append(load_of(stage.backbone, batch))
        assert torch.equal(stage.backbone.expert_bias(), biases[-1]), "moved between micro-batches"

    def end(_: Any, stage: PretrainModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % 2 == 1:
            biases.append(stage.backbone.expert_bias())

    spies = [Spy("on_train_batch_start", start), Spy("on_train_batch_end", end)]
    fit = trainer(2, tmp_path, spies, accumulate_grad_batches=2)
    fit.fit(miniature.pretrain(bias_update_speed=0.125), loader)
    assert fit.global_step == 2 and len(biases) == 3
    for step in range(2):
        expected = updated_expert_bias(biases[step], loads[2 * step] + loads[2 * step + 1], 0.125)
        assert torch.equal(biases[step + 1], expected)
    apart = updated_expert_bias(biases[0], loads[0], 0.125)
    assert not torch.equal(biases[1], apart), "the second micro-batch decided nothing: choose other data"


def test_speed_zero_leaves_the_bias_alone(tmp_path: Path) -> None:
    miniature = Miniature()
    before = miniature.model.expert_bias()
    trainer(6, tmp_path).fit(miniature.pretrain(bias_update_speed=0.0), datamodule=miniature.text())
    assert torch.equal(miniature.model.expert_bias(), before)


@pytest.mark.parametrize("speed", [0.0, 0.125])
def test_neither_sampling_nor_the_reference_counts_as_load(tmp_path: Path, speed: float) -> None:
    miniature = Miniature(max_steps=4)
    counted: list[tuple[int, int]] = []

    def before(fit: Any, stage: Any, optimizer: Any) -> None:
        rollout = fit.datamodule.dataset.micro_batches[fit.global_step % 2]
        counted.append((int(stage.expert_load[0].sum()), 2 * int(rollout.tokens.is_token.sum())))  # two chosen experts

    spies = [Spy("on_before_optimizer_step", before)]
    trainer(4, tmp_path, spies).fit(
        miniature.grpo(router="update", bias_update_speed=speed), datamodule=miniature.rollouts()
    )
    assert len(counted) == 4 and all(found == expected for found, expected in counted)


def test_layers_that_a_stage_does_not_use_keep_their_bias(tmp_path: Path) -> None:
    """GRPO runs without the MTP module: its router sees no token, so that its bias must not move."""
    miniature = Miniature(model=backbone(n_layers=3), max_steps=2)  # two mixtures in the trunk, one in the MTP module
    before = miniature.model.expert_bias()
    trainer(2, tmp_path).fit(miniature.grpo(router="update", bias_update_speed=0.125), datamodule=miniature.rollouts())
    after = miniature.model.expert_bias()
    assert before.shape == (3, 4)
    assert not torch.equal(after[:2], before[:2]) and torch.equal(after[2], before[2])


def test_a_dense_model_has_no_bias_to_move(tmp_path: Path) -> None:
    miniature = Miniature(model=backbone(n_dense_layers=2), max_steps=2)
    fit = trainer(2, tmp_path)
    fit.fit(miniature.pretrain(), datamodule=miniature.text())
    assert fit.global_step == 2 and "moe/max_violation" not in fit.callback_metrics


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("metric", ["train/loss", "train/grad_norm"])
def test_a_diverged_run_stops_before_the_step_and_keeps_its_weights(tmp_path: Path, metric: str, value: float) -> None:
    miniature = Miniature(optim=AdamWConfig(lr=0.03), max_steps=4)
    module = miniature.pretrain()
    original = module.training_step

    def spoiled(batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = original(batch, batch_idx)
        if module.global_step < 2:
            return loss
        if metric == "train/grad_norm":  # the loss stays a number
            loss.register_hook(lambda gradient: gradient * value)
            return loss
        return loss + value  # the gradient stays a number

    module.training_step = spoiled
    fit = trainer(4, tmp_path, [ResumeCheckpoint(tmp_path, 1)])
    with pytest.raises(InvalidInput, match=rf"^{metric}=(nan|inf) at step 2: .*lower optim\.lr than 0\.03") as end:
        fit.fit(module, datamodule=miniature.text())
    assert "\n" not in str(end.value)
    weights = {name: p.detach() for name, p in miniature.model.named_parameters()}
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())
    saved = torch.load(tmp_path / LAST, weights_only=True)
    assert saved["global_step"] == fit.global_step == 2
    for name, weight in weights.items():  # not the optimizer's step, not even a part of it
        assert torch.equal(saved["state_dict"][f"backbone.{name}"], weight), name


def test_a_loss_that_is_no_number_in_any_micro_batch_stops_the_step(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=4)
    module = miniature.pretrain()
    original = module.training_step
    module.training_step = lambda batch, batch_idx: original(batch, batch_idx) + (float("nan") if batch_idx == 2 else 0)
    loader = Batches(list(miniature.text().train_dataloader()))
    fit = trainer(2, tmp_path, accumulate_grad_batches=2)
    with pytest.raises(InvalidInput, match="train/loss=nan at step 1"):  # the first of the second step's two
        fit.fit(module, loader)
    assert fit.global_step == 1


class Poisoned:
    """Spoils the gradients of chosen steps; notes weights, biases and optimizer state after each step."""

    def __init__(self, miniature: Miniature, steps: set[int], **settings: Any) -> None:
        self.module = miniature.pretrain(on_nonfinite="skip", bias_update_speed=0.125, **settings)
        self.original, self.steps = self.module.training_step, steps
        self.module.training_step = self.training_step
        self.states: list[tuple[list[Tensor], Tensor, list[Tensor]]] = []
        self.skipped: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.original(batch, batch_idx)
        if self.module.global_step in self.steps:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    def note(self, fit: Any, stage: PretrainModule, *_: Any) -> None:
        weights = [parameter.detach().clone() for parameter in stage.backbone.parameters()]
        moments = [state["exp_avg"].clone() for state in fit.optimizers[0].state.values()]
        self.states.append((weights, stage.backbone.expert_bias(), moments))
        self.skipped.append(float(fit.callback_metrics["train/skipped_step"]))


@pytest.mark.filterwarnings("ignore:.*this step is skipped")
def test_a_skipped_step_moves_nothing_and_training_goes_on(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=5)
    run = Poisoned(miniature, {2})
    fit = trainer(5, tmp_path, [Spy("on_train_batch_end", run.note)])
    fit.fit(run.module, datamodule=miniature.text())
    assert fit.global_step == 5 and run.skipped == [0, 0, 1, 0, 0]
    for part in (0, 2):
        same = [all(map(torch.equal, a[part], b[part])) for a, b in itertools.pairwise(run.states)]
        assert same == [False, True, False, False]
    biases = [torch.equal(a[1], b[1]) for a, b in itertools.pairwise(run.states)]
    assert biases == [False, True, False, False]
    assert all(bool(torch.isfinite(weight).all()) for weight in run.states[-1][0])


@pytest.mark.filterwarnings("ignore:.*this step is skipped")
def test_too_many_skipped_steps_in_a_row_stop_the_run(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=30)
    run = Poisoned(miniature, set(range(5, 30)))
    fit = trainer(30, tmp_path)
    with pytest.raises(InvalidInput, match="train/grad_norm=nan at step 15"):  # 5 to 14 are the ten that may be skipped
        fit.fit(run.module, datamodule=miniature.text())
    assert fit.global_step == 15


@pytest.mark.parametrize("stage", ["pretrain", "grpo", "sft", "distill", "reward_model", "dpo"])
def test_recompute_changes_no_bit_of_any_stage(tmp_path: Path, stage: str) -> None:
    """Three steps, expert biases included: a load that was counted twice would move them otherwise."""

    def run(recompute: bool) -> int:
        miniature = Miniature(max_steps=3)
        if recompute:
            miniature.model.recompute_blocks()
        data = {
            "pretrain": miniature.text,
            "grpo": miniature.rollouts,
            "sft": miniature.examples,
            "distill": miniature.traces,
            "reward_model": miniature.preferences,
            "dpo": miniature.preferences,
        }[stage]
        settings = {"pretrain": {"bias_update_speed": 0.05}, "grpo": {"router": "update", "bias_update_speed": 0.05}}
        module = getattr(miniature, stage)(**settings.get(stage, {}))
        trainer(3, tmp_path, []).fit(module, datamodule=data())
        return fingerprint(module.backbone)

    assert run(True) == run(False)
