"""GRPO's step: the gradient of DeepSeekMath eq 20-21, the same from one batch or several, and nothing else moves."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.functional.sequence_policy_loss import SequenceLevelGRPO
from r1_lightning.rollout.collate import collate, split_rows
from r1_lightning.rollout.results import Rollout
from r1_lightning.rollout.scoring import score_completions
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import GRPOBatch, TokenBatch
from tests.support.miniature import (
    EOS,
    PAD,
    Miniature,
    Sums,
    backbone,
    backwards,
    fingerprint,
    grad_of,
    rollout_config,
    trainer,
)

TEMPERATURE, BETA = 0.7, 0.3


def miniature(**changes: Any) -> Miniature:
    return Miniature(max_steps=1, rollout=rollout_config(sampling_temperature=TEMPERATURE, **changes))


def sampled(mini: Miniature) -> tuple[Rollout, GRPOBatch]:
    """A rollout of the miniature's policy, and all of its completions as one minibatch."""
    rollout = mini.maker()(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    return rollout, collate(rollout, torch.arange(12), mini.rollout.row_tokens, PAD)


def stage(mini: Miniature, objective: Any = None) -> GRPOModule:
    """A stage whose reference, where it needs one, is another model, so that the KL has a gradient."""
    module = mini.grpo(objective=objective or TokenLevelGRPO(kl_coef=BETA))
    if module.objective.needs_reference:
        module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
    return module


def logprobs_alone(model: Any, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """log softmax(logits / T) of each completion token, the document alone in a row and nothing packed."""
    ids = torch.tensor([prompt + completion])
    logits = model.unembed(model.hidden(TokenBatch(ids, torch.arange(ids.shape[1])[None], torch.ones_like(ids))).hidden)
    chosen = (logits[0] / TEMPERATURE).log_softmax(-1)[torch.arange(ids.shape[1] - 1), ids[0, 1:]]
    return chosen[len(prompt) - 1 :]


def test_on_policy_gradient_is_deepseekmaths_equations_20_and_21(tmp_path: Path) -> None:
    """grad J = 1/S sum_i 1/|o_i| sum_t [A_i + beta (pi_ref / pi - 1)] grad log pi, completion by completion."""
    mini = miniature()
    rollout, batch = sampled(mini)
    module = stage(mini)
    rewards = rollout.rewards
    advantages = (rewards - rewards.mean(1, keepdim=True)) / rewards.std(1, keepdim=True, correction=0)
    objective = torch.zeros(())
    for row, length in enumerate(rollout.generation.completion_mask.sum(1).tolist()):
        prompt, completion = list(rollout.prompts[row // 4]), rollout.generation.completion_ids[row, :length].tolist()
        policy = logprobs_alone(mini.model, prompt, completion)
        with torch.no_grad():
            reference = logprobs_alone(module.reference.backbone, prompt, completion)
            coefficient = advantages.flatten()[row] + BETA * (torch.exp(reference - policy) - 1)
        objective = objective + (coefficient * policy).sum() / length / 12
    (-objective).backward()
    expected = grad_of(mini.model)
    mini.model.zero_grad()
    found = backwards(module, [batch], tmp_path)[0].gradients
    assert expected.keys() == found.keys() and len(found) > 10
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-4, atol=2e-6)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.05


def part(batch: GRPOBatch, rows: slice) -> GRPOBatch:
    """The micro-batch of some packed rows: `n_sequences` and the fields per sequence stay those of the whole."""
    tokens = batch.tokens.map(lambda ids_BT: ids_BT[rows])
    fields = ("completion_mask", "old_logprobs", "sampler_logprobs", "sequence_ids", "advantages")
    return dataclasses.replace(batch, tokens=tokens, **{name: getattr(batch, name)[rows] for name in fields})


@pytest.mark.parametrize("cut", [1, 3])
def test_micro_batches_of_any_size_equal_the_batch(tmp_path: Path, cut: int) -> None:
    def step(parts: list[GRPOBatch]) -> tuple[dict[str, torch.Tensor], int]:
        mini = miniature()
        result = backwards(stage(mini), parts, tmp_path, accumulate_grad_batches=len(parts))
        assert len(result) == 1
        return result[0].gradients, fingerprint(mini.model)

    _, batch = sampled(miniature())
    assert batch.tokens.token_ids.shape[0] > 4
    whole, _ = step([batch])
    split, _ = step([part(batch, slice(None, cut)), part(batch, slice(cut, None))])
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-4, atol=1e-6)


def test_metrics_of_an_on_policy_step(tmp_path: Path) -> None:
    mini = miniature()
    rollout, batch = sampled(mini)
    step = backwards(mini.grpo(), [batch], tmp_path)[0]
    # ratio 1, KL 0: the loss is -mean of the advantages, which is 0 as every group's sum is.
    assert abs(step.loss) < 1e-5
    assert step.metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert step.metrics["policy/clip_fraction"] == 0.0 and step.metrics["policy/kl_ref"] == 0.0
    assert 0.0 <= step.metrics["policy/kl_old"] < 1e-9  # sampler and training forward differ by rounding in FP32
    assert 0.0 < step.metrics["policy/entropy"] < 2.89  # ln 18
    assert float(rollout.advantages.abs().sum()) > 1.0


def test_the_loss_of_a_stale_batch_depends_on_its_old_logprobs(tmp_path: Path) -> None:
    _, batch = sampled(miniature())
    older = dataclasses.replace(batch, old_logprobs=batch.old_logprobs - 0.5)
    losses = []
    for one in (batch, older):
        mini = miniature()
        losses.append(backwards(mini.grpo(), [one], tmp_path)[0])
    # ratio e^0.5 = 1.65: above 1.2 it is cut for every positive advantage.
    assert losses[1].metrics["policy/ratio_mean"] == pytest.approx(1.6487, abs=1e-3)
    assert losses[1].metrics["policy/clip_fraction"] > 0.2
    assert losses[1].metrics["policy/kl_old"] == pytest.approx(0.1487, abs=1e-4)  # e^0.5 - 1 - 0.5
    assert losses[1].loss != pytest.approx(losses[0].loss, abs=1e-3)


def test_prompts_and_padding_do_not_count(tmp_path: Path) -> None:
    """Old log-probs outside of completions are never read, and a wider row changes no gradient."""
    _, batch = sampled(miniature())
    spoiled = batch.old_logprobs.masked_fill(~batch.completion_mask, 99.0)
    gradients = []
    for one in (batch, dataclasses.replace(batch, old_logprobs=spoiled)):
        gradients.append(backwards(stage(miniature()), [one], tmp_path)[0].gradients)
    wide = miniature(row_tokens=40)
    gradients.append(backwards(stage(wide), [sampled(wide)[1]], tmp_path)[0].gradients)
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradient)
        torch.testing.assert_close(gradients[2][name], gradient, rtol=1e-4, atol=1e-6)


def test_only_the_policy_moves_and_its_expert_biases_stay(tmp_path: Path) -> None:
    mini = miniature(minibatches_per_rollout=1)
    mini.max_steps = 3
    module = mini.grpo()
    bias, reference = mini.model.expert_bias(), fingerprint(module.reference.backbone)
    before = {name: tensor.clone() for name, tensor in mini.model.state_dict().items()}
    trainer(3, tmp_path).fit(module, datamodule=mini.rollouts())
    assert torch.equal(mini.model.expert_bias(), bias)
    assert fingerprint(module.reference.backbone) == reference
    after = mini.model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved and not any(name.startswith("mtp_modules") for name in moved)


def test_the_sequence_form_is_an_option(tmp_path: Path) -> None:
    """On-policy and without KL the loss is minus the mean advantage, 0, and grad J = 1/S sum_i A_i sum_t grad log pi."""
    mini = miniature()
    rollout, batch = sampled(mini)
    whole = backwards(stage(miniature(), SequenceLevelGRPO(kl_coef=0.0)), [batch], tmp_path)[0]
    assert abs(whole.loss) < 1e-5
    objective = torch.zeros(())
    for row, length in enumerate(rollout.generation.completion_mask.sum(1).tolist()):
        completion = rollout.generation.completion_ids[row, :length].tolist()
        policy = logprobs_alone(mini.model, list(rollout.prompts[row // 4]), completion)
        objective = objective + rollout.advantages[row, 0] * policy.sum() / 12
    (-objective).backward()
    for name, gradient in grad_of(mini.model).items():
        torch.testing.assert_close(whole.gradients[name], gradient, rtol=2e-4, atol=2e-6)
    # The token-level form divides each completion's part by |o_i|, and so is another gradient.
    token = backwards(stage(miniature(), TokenLevelGRPO(kl_coef=0.0)), [batch], tmp_path)[0]
    one, other = whole.gradients["head.weight"], token.gradients["head.weight"]
    assert (one - other).norm() > 0.5 * one.norm()


def test_a_rewarded_completion_becomes_more_likely(tmp_path: Path) -> None:
    mini = miniature(minibatches_per_rollout=1)
    mini.optim = AdamWConfig(lr=1e-3, weight_decay=0.0)
    rollout, batch = sampled(mini)
    best, worst = int(rollout.advantages[:, 0].argmax()), int(rollout.advantages[:, 0].argmin())

    @torch.no_grad()
    def likelihood(row: int) -> float:
        length = int(rollout.generation.completion_mask[row].sum())
        completion = rollout.generation.completion_ids[row, :length].tolist()
        return float(logprobs_alone(mini.model, list(rollout.prompts[row // 4]), completion).mean())

    before = likelihood(best), likelihood(worst)
    backwards(mini.grpo(), [batch], tmp_path)
    assert likelihood(best) > before[0] and likelihood(worst) < before[1]


def test_a_bad_temperature_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"rollout\.sampling_temperature=0\.0"):
        miniature().grpo(sampling_temperature=0.0)


def test_where_to_stop_is_learned_like_everything_else(tmp_path: Path) -> None:
    """The EOS of each finished completion is a completion token: in the mask, in its length, and in the gradient."""
    mini = miniature()
    rollout, batch = sampled(mini)
    finished = int(rollout.generation.finished.sum())
    trained = batch.tokens.token_ids[batch.completion_mask]
    assert 3 < finished == int((trained == EOS).sum())
    assert int(batch.completion_tokens.sum()) == len(trained)
    with_eos = backwards(stage(mini), [batch], tmp_path)[0].gradients
    masked = batch.completion_mask & (batch.tokens.token_ids != EOS)
    without = backwards(stage(miniature()), [dataclasses.replace(batch, completion_mask=masked)], tmp_path)[0].gradients
    row = with_eos["head.weight"][EOS]
    assert (row - without["head.weight"][EOS]).norm() > 0.1 * row.norm()


@pytest.mark.parametrize(("mode", "moves", "skipped"), [("train", True, 0.0), ("skip", False, 1.0)])
def test_a_step_without_advantages_trains_on_the_kl_alone_or_is_skipped(
    tmp_path: Path, mode: str, moves: bool, skipped: float
) -> None:
    mini = miniature()
    _, batch = sampled(mini)
    equal = dataclasses.replace(batch, advantages=torch.zeros_like(batch.advantages))
    module = mini.grpo(objective=TokenLevelGRPO(kl_coef=BETA), on_zero_variance=mode)
    module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
    before = fingerprint(mini.model)
    step = backwards(module, [equal], tmp_path)[0]
    assert (fingerprint(mini.model) != before) == moves
    assert step.metrics["train/skipped_step"] == skipped


def test_a_step_without_advantages_can_stop_the_run(tmp_path: Path) -> None:
    mini = miniature()
    _, batch = sampled(mini)
    equal = dataclasses.replace(batch, advantages=torch.zeros_like(batch.advantages))
    logger = CSVLogger(tmp_path, name="log")
    with pytest.raises(InvalidInput, match=r"equal rewards.*stage\.on_zero_variance=stop"):
        backwards(mini.grpo(on_zero_variance="stop"), [equal], tmp_path, logger=logger)
    written = (Path(logger.log_dir) / "metrics.csv").read_text(encoding="utf-8").split()
    assert written == ["rollout/zero_variance_fraction,step", "1.0,0"]  # for who looks at the run
    with pytest.raises(InvalidInput, match=r"stage\.on_zero_variance='never'"):
        mini.grpo(on_zero_variance="never")


def test_one_micro_batch_with_advantages_is_enough(tmp_path: Path) -> None:
    """The second half has none, and it comes last: what decides is the whole step."""
    mini = miniature()
    _, batch = sampled(mini)
    first, second = part(batch, slice(None, 3)), part(batch, slice(3, None))
    second = dataclasses.replace(second, advantages=torch.zeros_like(second.advantages))
    before = fingerprint(mini.model)
    backwards(mini.grpo(on_zero_variance="skip"), [first, second], tmp_path, accumulate_grad_batches=2)
    assert bool(first.advantages.any()) and fingerprint(mini.model) != before


def masked_advantages(batch: GRPOBatch, kept: slice) -> GRPOBatch:
    """Only the packed rows `kept` have advantages, and everything in them is masked out: cut off by the length limit."""
    mask = batch.completion_mask.clone()
    mask[kept] = False
    rows = torch.zeros_like(batch.advantages)
    rows[kept] = batch.advantages[kept]
    return dataclasses.replace(batch, completion_mask=mask, advantages=rows)


@pytest.mark.parametrize("kept", [slice(0, 1), slice(0, 2), slice(1, 3), slice(2, 5), slice(0, None)])
def test_a_masked_completion_with_an_advantage_teaches_nothing(tmp_path: Path, kept: slice) -> None:
    mini = miniature()
    _, batch = sampled(mini)
    masked = masked_advantages(batch, kept)
    assert bool(masked.advantages.any())
    before = fingerprint(mini.model)
    step = backwards(mini.grpo(on_zero_variance="skip"), [masked], tmp_path)[0]
    assert fingerprint(mini.model) == before and step.metrics["train/skipped_step"] == 1.0
    with pytest.raises(InvalidInput, match=r"stage\.on_zero_variance=stop"):
        backwards(miniature().grpo(on_zero_variance="stop"), [masked], tmp_path)


@pytest.mark.parametrize("more", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("router", ["update", "frozen", "replay"])
def test_more_micro_batches_than_rows_change_neither_load_nor_gradient(tmp_path: Path, more: int, router: str) -> None:
    batch = recorded(miniature())
    rows = len(batch.completion_mask)

    def step(parts: list[GRPOBatch]) -> tuple[Any, torch.Tensor, torch.Tensor]:
        mini, loads = miniature(), []
        module = mini.grpo(objective=TokenLevelGRPO(kl_coef=BETA), router=router, bias_update_speed=0.125)
        module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
        count = module.count_load
        module.count_load = lambda output: (count(output), loads.append(output.expert_load))[0]  # type: ignore[method-assign]
        result = backwards(module, parts, tmp_path, accumulate_grad_batches=len(parts))[0]
        return result, torch.stack(loads).sum(0), mini.model.expert_bias()

    whole, load, bias = step([batch])
    split, split_load, split_bias = step(split_rows(batch, rows + more))
    assert torch.equal(split_load, load) and torch.equal(split_bias, bias)
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(split.gradients[name], gradient, rtol=1e-4, atol=1e-6)
    for name in ("train/loss", "policy/kl_ref", "policy/entropy", "policy/ratio_mean"):
        assert split.metrics[name] == pytest.approx(whole.metrics[name], abs=1e-5)


def test_a_minibatch_of_truncated_completions_alone_is_no_nan(tmp_path: Path) -> None:
    mini = miniature()
    _, batch = sampled(mini)
    nothing = dataclasses.replace(batch, completion_mask=torch.zeros_like(batch.completion_mask), n_tokens=0)
    step = backwards(mini.grpo(), [nothing], tmp_path)[0]
    assert step.loss == 0.0 and all(math.isfinite(value) for value in step.metrics.values())


# ------------------------------------------------------------------------------------------------- mixtures of experts in RL


def recorded(mini: Miniature) -> GRPOBatch:
    """A minibatch that carries the sampler's experts."""
    sampler = mini.sampler()
    sampler.record_routes = True
    rollout = mini.maker(sampler)(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    return collate(rollout, torch.arange(12), mini.rollout.row_tokens, PAD)


def test_replay_is_the_same_as_the_free_choice_while_policy_and_sampler_agree(tmp_path: Path) -> None:
    batch = recorded(miniature())
    free = backwards(stage(miniature()), [batch], tmp_path)[0]
    mini = miniature()
    module = mini.grpo(objective=TokenLevelGRPO(kl_coef=BETA), router="replay")
    module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
    replayed = backwards(module, [batch], tmp_path)[0]
    assert replayed.metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert replayed.metrics["policy/kl_ref"] != free.metrics["policy/kl_ref"]  # the reference took the policy's experts


@torch.no_grad()
def test_replay_takes_the_samplers_experts_after_the_router_has_moved() -> None:
    mini = miniature()
    batch = recorded(mini)
    assert batch.routes is not None
    known = batch.routes >= 0
    for router in mini.model._routers():
        router.weight.add_(torch.randn(router.weight.shape, generator=torch.Generator().manual_seed(3)))
    free = mini.model.hidden(batch.tokens, with_mtp=False).routes
    replayed = score_completions(mini.model, batch, TEMPERATURE, replay=True).output.routes
    assert torch.equal(replayed[known], batch.routes[known])
    assert not torch.equal(free[known], batch.routes[known])


def test_routers_update_moves_biases_and_frozen_and_replay_do_not(tmp_path: Path) -> None:
    for router, moves in (("frozen", False), ("update", True), ("replay", False)):
        mini = miniature()
        batch, before = recorded(mini), mini.model.expert_bias()
        backwards(mini.grpo(router=router, bias_update_speed=0.125), [batch], tmp_path)
        assert torch.equal(mini.model.expert_bias(), before) != moves, router
    with pytest.raises(InvalidInput, match=r"stage\.router='free'"):
        mini.grpo(router="free")


def trunk_of(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: gradient for name, gradient in gradients.items() if not name.startswith("mtp_modules")}


@pytest.mark.parametrize("weight", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("tied", [False, True])
def test_a_detached_mtp_loss_leaves_the_policy_to_its_rewards(tmp_path: Path, weight: float, tied: bool) -> None:
    """With all advantages 0 and no KL, trunk, embedding and head get a gradient of exactly 0; as in pre-training they do not."""

    def gradients(trunk: str) -> dict[str, torch.Tensor]:
        mini = Miniature(model=backbone(tie_embeddings=tied), max_steps=1, rollout=miniature().rollout)
        _, batch = sampled(mini)
        equal = dataclasses.replace(batch, advantages=torch.zeros_like(batch.advantages))
        module = mini.grpo(objective=TokenLevelGRPO(kl_coef=0.0), mtp_loss_weight=weight, mtp_trunk=trunk)
        return backwards(module, [equal], tmp_path)[0].gradients

    detached, trained = gradients("detached"), gradients("trained")
    assert detached.keys() == trained.keys() and {"embedding.weight", "norm.weight"} <= trunk_of(detached).keys()
    assert all(gradient.abs().max() == 0.0 for gradient in trunk_of(detached).values())
    assert all(gradient.abs().max() > 0.0 for gradient in trunk_of(trained).values())
    modules = detached.keys() - trunk_of(detached).keys()
    assert len(modules) > 5 and all(torch.equal(detached[name], trained[name]) for name in modules)
    assert any(detached[name].abs().max() > 0 for name in modules)


@pytest.mark.parametrize("router", ["frozen", "update", "replay"])
def test_a_detached_mtp_loss_adds_nothing_to_the_policys_gradient(tmp_path: Path, router: str) -> None:
    batch = recorded(miniature())

    def gradients(**settings: Any) -> dict[str, torch.Tensor]:
        mini = miniature()
        module = mini.grpo(objective=TokenLevelGRPO(kl_coef=BETA), router=router, **settings)
        module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
        return backwards(module, [batch], tmp_path)[0].gradients

    without, detached = gradients(), gradients(mtp_loss_weight=0.5, mtp_trunk="detached")
    trained = gradients(mtp_loss_weight=0.5, mtp_trunk="trained")
    for name, gradient in without.items():
        assert torch.equal(detached[name], gradient), name
    assert any(not torch.equal(trained[name], gradient) for name, gradient in without.items())


def test_what_the_mtp_loss_moves_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInput, match=r"stage\.mtp_trunk='frozen'"):
        miniature().grpo(mtp_trunk="frozen")
    _, batch = sampled(miniature())
    for settings, said in (
        ({"mtp_loss_weight": 0.1}, 1),
        ({"mtp_loss_weight": 0.1, "mtp_trunk": "detached"}, 0),
        ({}, 0),
    ):
        backwards(miniature().grpo(**settings), [batch], tmp_path)
        assert capsys.readouterr().out.count("+stage.mtp_trunk=detached") == said


def test_the_mtp_module_can_go_on_learning_the_completions(tmp_path: Path) -> None:
    """Its loss is lambda times the cross-entropy of the token two places ahead, over completion tokens."""
    mini = miniature()
    _, batch = sampled(mini)
    step = backwards(mini.grpo(mtp_loss_weight=0.5), [batch], tmp_path)[0]
    assert any(name.startswith("mtp_modules") for name in step.gradients)
    output = miniature().model.hidden(batch.tokens)
    total, count = 0.0, 0
    for b, t in batch.completion_mask.nonzero().tolist():
        if t >= 2 and batch.tokens.document_ids[b, t - 2] == batch.tokens.document_ids[b, t]:
            logits = miniature().model.unembed(output.mtp[0][b, t - 2])
            total -= float(logits.log_softmax(-1)[batch.tokens.token_ids[b, t]])
            count += 1
    assert step.metrics["train/mtp_loss"] == pytest.approx(0.5 * total / count, rel=1e-4)
    without = backwards(miniature().grpo(), [batch], tmp_path)[0]
    assert not any(name.startswith("mtp_modules") for name in without.gradients)
