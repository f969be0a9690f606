"""PPO's step against the equations as loops over completions, one batch or several, and what moves and what does not."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from r1_lightning.artefacts.weights import load_weights, save_weights
from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.functional.sequence_policy_loss import GSPO
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings, is_adapter
from r1_lightning.rollout.collate import collate, padding, split_rows
from r1_lightning.rollout.results import Rollout
from r1_lightning.rollout.value_baseline import ValueBaseline
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.stages.ppo import PPOModule
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import GRPOBatch, TokenBatch
from tests.support.hf_folders import DENSE
from tests.support.miniature import (
    PAD,
    CharTokenizer,
    Miniature,
    Spy,
    Sums,
    backbone,
    backwards,
    fingerprint,
    grad_of,
    ppo_rollouts,
    rollout_config,
    trainer,
)

TEMPERATURE, KL_IN_REWARD, KL_IN_LOSS, LAMBDA, DISCOUNT, CLIP = 0.7, 0.2, 0.3, 0.8, 0.95, 0.25


def miniature(baseline: ValueBaseline | None = None, **changes: Any) -> Miniature:
    baseline = baseline or ValueBaseline(LAMBDA, DISCOUNT, KL_IN_REWARD)
    return Miniature(max_steps=1, rollout=ppo_rollouts(baseline, sampling_temperature=TEMPERATURE, **changes))


def stage(mini: Miniature, **settings: Any) -> PPOModule:
    """A stage whose reference and value model are others than the policy, the head of the values included."""
    settings = {"objective": TokenLevelGRPO(kl_coef=KL_IN_LOSS), "value_clip_eps": CLIP, **settings}
    module = mini.ppo(**settings)
    if module.reference.backbone is not None:
        module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
    module.critic.backbone.load_state_dict(backbone(seed=5).state_dict())
    nn.init.normal_(module.critic.score.weight, generator=torch.Generator().manual_seed(2))
    return module


def sampled(mini: Miniature) -> tuple[Rollout, GRPOBatch]:
    """A rollout of the miniature's policy, after a stage has lent its value model, and all of its completions as one minibatch."""
    rollout = mini.maker()(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    return rollout, collate(rollout, torch.arange(12), mini.rollout.row_tokens, PAD)


def hidden_alone(model: Any, ids: list[int]) -> torch.Tensor:
    """Hidden states T x D of a document that is alone in its row."""
    row = torch.tensor([ids])
    batch = TokenBatch(row, torch.arange(len(ids))[None], torch.ones_like(row))
    hidden: torch.Tensor = model.hidden(batch, with_mtp=False).hidden[0]
    return hidden


def logprobs_alone(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    logits = model.unembed(hidden_alone(model, prompt + completion)) / TEMPERATURE
    chosen = logits.log_softmax(-1)[torch.arange(len(logits) - 1), torch.tensor(prompt + completion)[1:]]
    return chosen[len(prompt) - 1 :]


def values_alone(module: PPOModule, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """V of the state before each token: what the head reads one position earlier."""
    hidden = hidden_alone(module.critic.backbone, prompt + completion)
    return module.critic.score(hidden).squeeze(-1)[len(prompt) - 1 : -1]


def advantages_by_loops(rewards: np.ndarray, values: np.ndarray) -> np.ndarray:
    """PPO eq 11-12: A_t = sum_l (gamma lambda)^l delta_{t+l}, the value behind the last token 0."""
    result = np.zeros_like(values)
    for start in range(len(values)):
        for step in range(len(values) - start):
            place = start + step
            after = values[place + 1] if place + 1 < len(values) else 0.0
            delta = rewards[place] + DISCOUNT * after - values[place]
            result[start] += (DISCOUNT * LAMBDA) ** step * delta
    return result


def test_a_step_is_the_printed_equations_completion_by_completion(tmp_path: Path) -> None:
    """DeepSeekMath eq 1-2 with PPO's GAE, in NumPy from each completion alone; losses and gradients of both models.

    On policy the ratio is 1, so the surrogate's gradient is A grad log pi; the KL in the loss is k3, whose gradient is
    (1 - pi_ref / pi) grad log pi. The values are those of the rollout, so the value loss is not clipped.
    """
    mini = miniature()
    module = stage(mini)
    rollout, batch = sampled(mini)
    rows = []
    for row, length in enumerate(rollout.generation.completion_mask.sum(1).tolist()):
        document = list(rollout.prompts[row // 4]), rollout.generation.completion_ids[row, :length].tolist()
        policy, values = logprobs_alone(mini.model, *document), values_alone(module, *document)
        with torch.no_grad():
            reference = logprobs_alone(module.reference.backbone, *document)
        rewards = -KL_IN_REWARD * (policy.detach() - reference).numpy()
        rewards[-1] += float(rollout.rewards.flatten()[row])
        rows.append((policy, reference, values, advantages_by_loops(rewards, values.detach().numpy())))
    advantages = np.concatenate([found for *_, found in rows])
    mean, std, n_tokens = advantages.mean(), np.sqrt(advantages.var(ddof=1) + 1e-8), len(advantages)
    objective, value_loss = torch.zeros(()), torch.zeros(())
    for policy, reference, values, own in rows:
        coefficient = torch.from_numpy((own - mean) / std) - KL_IN_LOSS * (1 - torch.exp(reference - policy.detach()))
        objective = objective + (coefficient * policy).mean() / 12
        due = values.detach() + torch.from_numpy(own)
        value_loss = value_loss + (values - due).square().sum() / 2 / n_tokens
    (-objective).backward()
    value_loss.backward()
    policy_gradient, value_gradient = grad_of(mini.model), grad_of(module.critic)
    module.zero_grad()

    found: dict[str, torch.Tensor] = {}
    spy = Spy("on_before_optimizer_step", lambda _, stage, __: found.update(grad_of(stage.critic)))
    step = backwards(module, [batch], tmp_path, callbacks=[spy])[0]
    assert step.metrics["value/loss"] == pytest.approx(float(value_loss.detach()), rel=1e-4)
    assert step.metrics["value/clip_fraction"] == 0.0
    for expected, gradients in ((policy_gradient, step.gradients), (value_gradient, found)):
        assert expected.keys() == gradients.keys() and len(expected) > 10
        assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.02
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=5e-4, atol=5e-6)


def test_micro_batches_of_any_size_equal_the_batch(tmp_path: Path) -> None:
    """Also more of them than rows; and metrics add up."""

    def step(parts: int) -> tuple[Any, dict[str, torch.Tensor]]:
        mini = miniature()
        module = stage(mini)
        _, batch = sampled(mini)
        assert batch.targets is not None  # as after a step: the clip binds somewhere
        older = dataclasses.replace(batch.targets, old_values=batch.targets.old_values - 0.4)
        batch = dataclasses.replace(batch, targets=older)
        batches, critic = split_rows(batch, parts), {}
        spy = Spy("on_before_optimizer_step", lambda _, stage, __: critic.update(grad_of(stage.critic)))
        return backwards(module, batches, tmp_path, callbacks=[spy], accumulate_grad_batches=parts)[0], critic

    (whole, critic), (split, split_critic), (many, many_critic) = step(1), step(3), step(9)
    assert 0 < whole.metrics["value/clip_fraction"] < 1
    for found, found_critic in ((split, split_critic), (many, many_critic)):
        for name, gradient in whole.gradients.items():
            torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-4, atol=1e-6)
        for name, gradient in critic.items():
            torch.testing.assert_close(found_critic[name], gradient, rtol=1e-4, atol=1e-6)
        for name in (
            "train/loss",
            "value/loss",
            "value/clip_fraction",
            "policy/kl_ref",
            "train/grad_norm",
            "value/grad_norm",
        ):
            assert found.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-4, abs=1e-6), name


def test_targets_travel_with_their_tokens() -> None:
    """Collated, divided and padded, a token keeps its value: each field of the batch is the rollout's, completion by completion."""
    mini = miniature()
    stage(mini)
    rollout, batch = sampled(mini)
    assert rollout.targets is not None
    for part in (batch, *split_rows(batch, 3)):
        assert part.targets is not None and part.targets.ref_logprobs is not None
        for line, column in part.completion_mask.nonzero().tolist():
            row = int(part.sequence_ids[line, column])
            before = int((part.sequence_ids[line, :column] == row).sum()) - len(rollout.prompts[row // 4])
            for name in ("old_values", "returns", "ref_logprobs"):
                assert getattr(part.targets, name)[line, column] == getattr(rollout.targets, name)[row, before]
    nothing = padding(batch).targets
    assert nothing is not None and nothing.returns.shape == (1, 1) and nothing.map(torch.neg).ref_logprobs is not None


def test_it_begins_as_the_policy_with_values_of_zero_and_leaves_nothing_of_itself_in_the_artefact(
    tmp_path: Path,
) -> None:
    mini = miniature()
    module = mini.ppo()
    assert fingerprint(module.critic.backbone) == fingerprint(mini.model)
    rollout, _ = sampled(mini)
    assert rollout.targets is not None and not rollout.targets.old_values.any()
    assert rollout.metrics["value/mean"] == 0.0 and rollout.metrics["value/explained_variance"] == 0.0
    assert rollout.metrics["rollout/kl_ref"] == pytest.approx(0.0, abs=1e-6)  # the reference is the policy
    save_weights(module.backbone, tmp_path / "weights.safetensors")
    fresh = backbone(seed=3)
    load_weights(fresh, tmp_path / "weights.safetensors")  # strict: a name more or less is refused
    assert fingerprint(fresh) == fingerprint(mini.model)


@pytest.mark.slow
def test_values_become_the_rewards_that_come(tmp_path: Path) -> None:
    """The hash rewards 0, 1/2 or 1 of long completions: about 1/2 whatever is written. The policy all but stands still."""
    mini = miniature(ValueBaseline())
    mini.max_steps, mini.optim = 40, AdamWConfig(lr=1e-6, weight_decay=0.0)
    module, losses = mini.ppo(value_lr=0.01), []
    spy = Spy("on_train_batch_end", lambda fit, *_: losses.append(float(fit.callback_metrics["value/loss"])))
    trainer(40, tmp_path, [spy]).fit(module, datamodule=mini.rollouts())
    rollout, _ = sampled(mini)
    assert abs(rollout.metrics["value/mean"] - rollout.metrics["value/return_mean"]) < 0.15
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:2])


def test_both_learn_at_their_own_rates_and_are_clipped_apart(tmp_path: Path) -> None:
    """AdamW's first step moves each weight with a gradient by the learning rate; the norm of each model is brought to 1/8."""
    mini = miniature()
    mini.optim = AdamWConfig(lr=1e-3, weight_decay=0.0, max_grad_norm=0.125)
    module = stage(mini, value_lr=5e-3)
    _, batch = sampled(mini)
    before = mini.model.head.weight.detach().clone(), module.critic.score.weight.detach().clone()
    norms: list[float] = []

    clip = module.clipped_norms

    def clipped(optimizer: Any) -> dict[str, torch.Tensor]:
        found = clip(optimizer)
        for model in (module.backbone, module.critic):
            norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in grad_of(model).values())))
        return found

    module.clipped_norms = clipped  # type: ignore[method-assign]
    step = backwards(module, [batch], tmp_path)[0]
    assert step.metrics["train/grad_norm"] > 0.125 < step.metrics["value/grad_norm"]
    assert norms == pytest.approx([0.125, 0.125], rel=1e-3)
    moved = [
        (after - old).abs().max()
        for after, old in zip((mini.model.head.weight, module.critic.score.weight), before, strict=True)
    ]
    assert [float(most) for most in moved] == pytest.approx([1e-3, 5e-3], rel=1e-2)
    assert step.metrics["optim/lr"] == pytest.approx(1e-3)


def test_muon_trains_the_value_models_head_as_a_head() -> None:
    mini = miniature()
    mini.optim = MuonConfig(lr=1e-3)
    module = mini.ppo()
    (group,) = [
        group
        for group in module.make_optimizer().param_groups
        if any(p is module.critic.score.weight for p in group["params"])
    ]
    assert not group["matrix"] and group["lr"] == 0.02


def test_without_a_kl_anywhere_there_is_no_reference(tmp_path: Path) -> None:
    mini = miniature(ValueBaseline())
    module = mini.ppo()
    _, batch = sampled(mini)
    assert batch.targets is not None and batch.targets.ref_logprobs is None
    assert "policy/kl_ref" not in backwards(module, [batch], tmp_path)[0].metrics


def test_a_nan_in_the_values_alone_stops_the_run(tmp_path: Path) -> None:
    mini = miniature()
    module = stage(mini)
    _, batch = sampled(mini)
    spoil = Spy("on_after_backward", lambda _, stage: stage.critic.score.weight.grad.fill_(math.nan))
    before = fingerprint(mini.model)
    with pytest.raises(InvalidInput, match=r"value/grad_norm=nan at step 0"):
        backwards(module, [batch], tmp_path, callbacks=[spoil])
    assert fingerprint(mini.model) == before


def test_only_what_trains_moves(tmp_path: Path) -> None:
    """Reference, biases of both routers and the value model's unused head stay."""
    mini = miniature(minibatches_per_rollout=1)
    mini.max_steps = 3
    module = mini.ppo()
    held = [
        fingerprint(module.reference.backbone),
        mini.model.expert_bias(),
        module.critic.expert_bias(),
        module.critic.backbone.head.weight.clone(),
    ]
    before = fingerprint(mini.model), fingerprint(module.critic)
    trainer(3, tmp_path).fit(module, datamodule=mini.rollouts())
    assert fingerprint(module.reference.backbone) == held[0]
    assert torch.equal(mini.model.expert_bias(), held[1]) and torch.equal(module.critic.expert_bias(), held[2])
    assert torch.equal(module.critic.backbone.head.weight, held[3])
    assert fingerprint(mini.model) != before[0] and fingerprint(module.critic) != before[1]


def test_the_reference_is_refreshed_before_it_is_asked(tmp_path: Path) -> None:
    """A rollout of step 2, with a refresh every 2 steps: its penalties are against the policy that sampled it, so 0."""
    mini = miniature(minibatches_per_rollout=1)
    mini.max_steps = 3
    module, data = mini.ppo(reference_refresh_steps=2), mini.rollouts()
    found: list[float] = []
    spy = Spy("on_train_batch_start", lambda *_: found.append(data.dataset.rollout.metrics["rollout/kl_ref"]))
    trainer(3, tmp_path, [spy]).fit(module, datamodule=data)
    assert found[0] == pytest.approx(0.0, abs=1e-6) and abs(found[1]) > 1e-4
    assert found[2] == pytest.approx(0.0, abs=1e-6)


def test_a_policy_with_adapters_has_a_value_model_with_adapters(tmp_path: Path) -> None:
    """Of `transformers`: both bases stay, and are equal; adapters and the head of the values train. The reference is the base."""
    pytest.importorskip("peft")
    shape = {"model_type": "qwen2", **DENSE, "vocab_size": CharTokenizer.vocab_size, "tie_word_embeddings": True}
    mini = miniature()
    mini.model = cast(Any, HFBackbone(HFModelConfig(shape, LoraSettings(4, 16)), seed=1))
    module = mini.ppo(value_clip_eps=None)
    models = {"policy": mini.model, "values": module.critic.backbone}
    before = {
        name: {key: tensor.clone() for key, tensor in model.state_dict().items()} for name, model in models.items()
    }
    _, batch = sampled(mini)
    step = backwards(module, [batch, batch], tmp_path)[1]  # a head of zeros lets no gradient through in its first step
    assert math.isfinite(step.metrics["value/loss"]) and step.metrics["value/grad_norm"] > 0
    for name, model in models.items():
        moved = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[name][key])}
        assert moved and all(is_adapter(key) for key in moved), name


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"value_lr": 0.0}, r"stage\.value_lr=0\.0"),
        ({"value_clip_eps": 0.0}, r"stage\.value_clip_eps=0\.0"),
        ({"objective": GSPO()}, r"stage\.objective='GSPO'.*a ratio, per token"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], refused: str) -> None:
    with pytest.raises(InvalidInput, match=refused):
        miniature().ppo(**settings)


def test_dynamic_sampling_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"rollout\.dynamic_sampling_attempts=2 .*compare no groups"):
        ppo_rollouts(dynamic_sampling_attempts=2)
    assert rollout_config(dynamic_sampling_attempts=2).advantages is None
