"""Two and three processes compute the step of one: losses, gradients, expert biases, metrics and weights, for every stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.importance_sampling import CISPO
from r1_lightning.functional.preference_loss import IPO, PointWise
from r1_lightning.functional.sequence_policy_loss import GSPO
from r1_lightning.functional.shards import whole
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.rollout.collate import collate
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.types.processes import ONE, Processes
from tests.support.hf_folders import DENSE
from tests.support.miniature import (
    PAD,
    Batches,
    CharTokenizer,
    Miniature,
    Spy,
    Sums,
    backbone,
    fingerprint,
    grad_of,
    ppo_rollouts,
    rollout_config,
    sharded,
    trainer,
)
from tests.support.processes import in_processes

STEPS = 2
CLOSE = 1e-6  # of the largest gradient: what other orders of FP32 sums leave of equality


@dataclass(frozen=True)
class Trained:
    """Gradients of each step before clipping, metrics of each step, and state of the model after the last."""

    gradients: list[dict[str, Tensor]]
    metrics: list[dict[str, float]]
    state: dict[str, Tensor]


def _trained(
    processes: Processes,
    make: Callable[[Miniature, Path], tuple[Any, Any]],
    folder: Path,
    is_sharded: bool = False,
    recompute: bool = False,
) -> Trained:
    optim = AdamWConfig(
        lr=1e-4
    )  # a small step: AdamW's first one is as long for a gradient that is nothing but rounding
    mini = Miniature(model=backbone(balance_loss_alpha=0.1), max_steps=STEPS, optim=optim, processes=processes)
    if recompute:
        mini.model.recompute_blocks()
    module, data = make(mini, folder)
    gradients: list[dict[str, Tensor]] = []
    metrics: list[dict[str, float]] = []

    def after(fit: L.Trainer, *_: Any) -> None:
        metrics.append({name: float(value) for name, value in fit.callback_metrics.items()})

    unclipped = module.configure_gradient_clipping

    def note(*arguments: Any, **keywords: Any) -> None:
        gradients.append(grad_of(module.backbone))
        unclipped(*arguments, **keywords)

    module.configure_gradient_clipping = note
    spies = [Spy("on_train_batch_end", after)]
    parts = getattr(data, "micro_batches", 1)
    settings: dict[str, Any] = {"accumulate_grad_batches": parts}
    if is_sharded and processes.count > 1:
        settings.update(sharded(processes))
    trainer(STEPS, folder, spies, processes, **settings).fit(module, data)
    state = {name: whole(value).clone() for name, value in module.backbone.state_dict().items()}
    return Trained(gradients, metrics, state)


def _pretrain(mini: Miniature, folder: Path, rows_per_batch: int = 4) -> tuple[Any, Any]:
    return mini.pretrain(bias_update_speed=0.01), mini.text(rows_per_batch=rows_per_batch)


def _sft(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.sft(bias_update_speed=0.01), mini.examples()


def _grpo(mini: Miniature, folder: Path, rollout: dict[str, int] | None = None, **settings: Any) -> tuple[Any, Any]:
    mini.rollout = rollout_config(**(rollout or {}))
    module = mini.grpo(router="update", bias_update_speed=0.01, **settings)
    if module.objective.needs_reference:  # another than the policy, so that the KL has a gradient at once
        module.reference.backbone.load_state_dict(backbone(seed=9, balance_loss_alpha=0.1).state_dict())
    return module, mini.rollouts()


def _distill(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.distill(bias_update_speed=0.01), mini.traces(micro_batches=2)


def _cached(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    teacher = mini.teacher()  # the cache is filled by as many processes as train; shards of weights, before they do
    return mini.distill(teacher=teacher), mini.cached(folder / f"cache-{mini.processes.count}", teacher)


def _on_policy(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.distill(), mini.on_policy()


def _reward_model(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.reward_model(), mini.preferences()


def _point_wise(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.reward_model(PointWise()), mini.preferences(items_per_batch=2)


def _dpo(mini: Miniature, folder: Path, items_per_batch: int = 4, **settings: Any) -> tuple[Any, Any]:
    module = mini.dpo(bias_update_speed=0.01, **settings)
    module.reference.backbone.load_state_dict(backbone(seed=9, balance_loss_alpha=0.1).state_dict())
    return module, mini.preferences(items_per_batch=items_per_batch)


Make = Callable[[Miniature, Path], tuple[Any, Any]]
STAGES: dict[str, Make] = {
    "pretrain": _pretrain,
    "pretrain, one row": partial(_pretrain, rows_per_batch=1),
    "sft": _sft,
    "grpo": _grpo,
    "grpo of whole sequences": partial(_grpo, objective=GSPO(kl_coef=0.3)),
    "grpo without KL": partial(_grpo, objective=CISPO()),
    "grpo with the MTP loss": partial(_grpo, mtp_loss_weight=0.3),
    "grpo of one prompt": partial(_grpo, rollout={"prompts_per_rollout": 1, "micro_batches": 2}),
    "grpo with shared prompts": partial(_grpo, rollout={"share_prompts_from": 3, "row_tokens": 40, "micro_batches": 2}),
    "distill": _distill,
    "distill from a cache": _cached,
    "distill on policy": _on_policy,
    "reward model": _reward_model,
    "reward model, point-wise": _point_wise,
    "dpo": _dpo,
    "dpo of one pair": partial(_dpo, items_per_batch=1, objective=IPO()),
}


def _compare(found: Trained, expected: Trained, least: int = 11) -> None:
    for step, (own, others) in enumerate(zip(found.gradients, expected.gradients, strict=True)):
        assert own.keys() == others.keys() and len(own) >= least
        largest = max(float(gradient.abs().max()) for gradient in others.values())
        apart = {name: float((own[name] - gradient).abs().max()) / largest for name, gradient in others.items()}
        assert max(apart.values()) <= CLOSE, (step, apart)
    for own_metrics, other_metrics in zip(found.metrics, expected.metrics, strict=True):
        assert own_metrics == pytest.approx(other_metrics, rel=CLOSE, abs=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("count, is_sharded", [(2, False), (3, False), (2, True)], ids=["2", "3", "2 of shards"])
@pytest.mark.parametrize("stage", STAGES)
def test_several_processes_take_the_steps_of_one(stage: str, count: int, is_sharded: bool, tmp_path: Path) -> None:
    job = partial(_trained, make=STAGES[stage], folder=tmp_path, is_sharded=is_sharded)
    (expected,) = in_processes(1, job)
    for found in in_processes(count, job):
        _compare(found, expected)
        biases = [name for name in expected.state if name.endswith("expert_bias")]
        assert biases and all(torch.equal(found.state[name], expected.state[name]) for name in biases)


def _ppo(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    mini.rollout = ppo_rollouts(micro_batches=2)
    return mini.ppo(router="update", bias_update_speed=0.01, value_lr=1e-4), mini.rollouts()


@pytest.mark.slow
def test_two_processes_take_ppos_steps(tmp_path: Path) -> None:
    """The value model's loss and the norm of its gradient are among the metrics; it is not made of shards."""
    job = partial(_trained, make=_ppo, folder=tmp_path)
    (expected,) = in_processes(1, job)
    assert expected.metrics[-1]["value/loss"] > 0 < expected.metrics[-1]["value/grad_norm"]
    for found in in_processes(2, job):
        _compare(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "sft", "grpo", "distill", "distill on policy", "reward model", "dpo"])
def test_blocks_of_shards_that_are_computed_again_give_the_steps_of_one(stage: str, tmp_path: Path) -> None:
    """`trainer.recompute`: the backward gathers a block's weights, computes its forward again, and keeps them for the gradient."""
    job = partial(_trained, make=STAGES[stage], folder=tmp_path)
    (expected,) = in_processes(1, job)
    for found in in_processes(2, partial(job, is_sharded=True, recompute=True)):
        assert len(found.gradients) == STEPS
        _compare(found, expected)


def _with_adapters(mini: Miniature, folder: Path, stage: Make) -> tuple[Any, Any]:
    """`stage` with a model of `transformers`, of which LoRA adapters alone are trained; they begin at another point than 0."""
    shape = {"model_type": "qwen2", **DENSE, "vocab_size": CharTokenizer.vocab_size, "max_position_embeddings": 64}
    model: Any = HFBackbone(HFModelConfig({**shape, "tie_word_embeddings": True}, LoraSettings(4, 16)), seed=1)
    for number, (name, weight) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(number))
    mini.model = model
    return stage(mini, folder)


def _sft_of_adapters(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.sft(), mini.examples()


def _grpo_of_adapters(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.grpo(), mini.rollouts()  # its reference is the base, as the policy's adapters are switched off


def _dpo_of_adapters(mini: Miniature, folder: Path) -> tuple[Any, Any]:
    return mini.dpo(), mini.preferences()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [_sft_of_adapters, _grpo_of_adapters, _dpo_of_adapters], ids=["sft", "grpo", "dpo"])
def test_adapters_of_shards_take_the_steps_of_one_process(stage: Make, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    job = partial(_trained, make=partial(_with_adapters, stage=stage), folder=tmp_path)
    (expected,) = in_processes(1, job)
    assert all("lora" in name for gradients in expected.gradients for name in gradients)
    for found in in_processes(2, partial(job, is_sharded=True)):
        _compare(found, expected, least=8)
        assert all(float((found.state[name] - value).abs().max()) < 1e-6 for name, value in expected.state.items())


def _step(processes: Processes, folder: Path, advantages: dict[int, float], **settings: Any) -> dict[str, Any]:
    """A step on twelve completions whose advantages are 0 but in some packed rows."""
    mini = Miniature(max_steps=1, rollout=rollout_config(), processes=processes)
    rollout = replace(mini, processes=ONE).maker()(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    batch = collate(rollout, torch.arange(12), mini.rollout.row_tokens, PAD)
    rows = torch.zeros(len(batch.advantages), 1)
    for row, advantage in advantages.items():
        rows[row] = advantage
    batch = replace(batch, advantages=torch.where(batch.completion_mask, rows, 0.0))
    share = share_of_rows(batch, processes)
    module, before = mini.grpo(objective=CISPO(), **settings), fingerprint(mini.model)
    fit = trainer(1, folder, processes=processes)
    fit.fit(module, Batches([share]))
    return {"skipped": float(fit.callback_metrics["train/skipped_step"]), "moved": fingerprint(mini.model) != before}


@pytest.mark.parametrize(
    "advantages, skipped", [({}, True), ({0: 1.0}, False), ({-1: 1.0}, False)], ids=["none", "first", "last"]
)
def test_a_step_that_teaches_one_process_is_taken_by_all(
    advantages: dict[int, float], skipped: bool, tmp_path: Path
) -> None:
    found = in_processes(2, partial(_step, folder=tmp_path, advantages=advantages, on_zero_variance="skip"))
    assert found == [{"skipped": float(skipped), "moved": not skipped}] * 2


def test_a_loss_that_is_not_finite_in_one_process_is_skipped_by_all(tmp_path: Path) -> None:
    advantages = {0: 1.0, -1: float("nan")}
    found = in_processes(2, partial(_step, folder=tmp_path, advantages=advantages, on_nonfinite="skip"))
    assert found == [{"skipped": 1.0, "moved": False}] * 2


def _alone(processes: Processes, folder: Path) -> str:
    mini = Miniature(max_steps=1)  # made for one process
    with pytest.raises(RuntimeError) as error:
        trainer(1, folder, processes=processes).fit(mini.pretrain(), mini.text())
    return str(error.value)


def test_a_stage_that_was_made_for_one_process_refuses_two(tmp_path: Path) -> None:
    message = "2 processes train a stage that was made for 1: each would train alone"
    assert in_processes(2, _alone, tmp_path) == [message] * 2
