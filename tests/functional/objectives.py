"""Sampled tokens to try objectives on, and TRL's own loss on the same numbers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from r1_lightning.functional.policy_loss import SampledTokens

LENGTHS = [5, 1, 3, 7, 2, 4]


def sampled(
    seed: int = 0, drift: float = 0.3, lengths: list[int] = LENGTHS, sampler_drift: float = 0.0
) -> SampledTokens:
    """Random log-probs of completions of `lengths` tokens; `drift` is how far policy and reference are from old."""
    generator = torch.Generator().manual_seed(seed)

    def normal(n: int) -> Tensor:
        return torch.randn(n, generator=generator, dtype=torch.float64)

    total = sum(lengths)
    old = -normal(total).abs() - 0.1
    policy, ref = old + drift * normal(total), old + drift * normal(total)
    sequence_ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return SampledTokens(
        policy_logprobs=policy,
        old_logprobs=old,
        ref_logprobs=ref,
        sequence_ids=sequence_ids,
        advantages=normal(len(lengths))[sequence_ids],
        sampler_logprobs=old + sampler_drift * normal(total),
        completion_tokens=torch.tensor(lengths, dtype=torch.float64),  # else weights would be FP32 and tolerances loose
        n_sequences=len(lengths),
        n_tokens=total,
    )


def with_gradient(tokens: SampledTokens) -> SampledTokens:
    return replace(tokens, policy_logprobs=tokens.policy_logprobs.clone().requires_grad_())


def sequence_advantages(tokens: SampledTokens) -> Tensor:
    """One advantage per sequence, read off its first token."""
    firsts = [int((tokens.sequence_ids == i).nonzero()[0]) for i in range(len(tokens.completion_tokens))]
    return tokens.advantages[firsts]


def two_sequences() -> SampledTokens:
    """Ratios 2 and 1/2 with A = 1, then a single token of ratio 1 with A = -3.

    The reference gives the first token half of the policy's probability, the others the policy's own; the sampler drew the
    tokens with twice, a half and a quarter of the old probability.
    """
    old = torch.log(torch.tensor([0.2, 0.8, 0.5]))
    policy = torch.log(torch.tensor([0.4, 0.4, 0.5]))
    ref = torch.log(torch.tensor([0.2, 0.4, 0.5]))
    return SampledTokens(
        policy_logprobs=policy,
        old_logprobs=old,
        sampler_logprobs=old + torch.log(torch.tensor([2.0, 0.5, 0.25])),
        ref_logprobs=ref,
        sequence_ids=torch.tensor([0, 0, 1]),
        advantages=torch.tensor([1.0, 1.0, -3.0]),
        completion_tokens=torch.tensor([2.0, 1.0]),
        n_sequences=2,
        n_tokens=3,
    )


def part_of(tokens: SampledTokens, sequences: slice) -> SampledTokens:
    """The micro-batch of some sequences; denominators stay those of the whole."""
    inside = (tokens.sequence_ids >= sequences.start) & (tokens.sequence_ids < sequences.stop)
    per_token = ("policy_logprobs", "old_logprobs", "sampler_logprobs", "ref_logprobs", "advantages")
    return replace(
        tokens,
        **{name: getattr(tokens, name).detach()[inside] for name in per_token},
        sequence_ids=tokens.sequence_ids[inside] - sequences.start,
        completion_tokens=tokens.completion_tokens[sequences],
    )


def far(policy: float, reference: float, advantages: tuple[float, ...]) -> SampledTokens:
    """Two tokens a completion, each `policy` nats more likely than when sampled, and the reference `reference` nats."""
    n = len(advantages)
    zeros = torch.zeros(2 * n)
    return SampledTokens(
        policy_logprobs=(zeros + policy).requires_grad_(),
        old_logprobs=zeros,
        sampler_logprobs=zeros,
        ref_logprobs=zeros + reference,
        sequence_ids=torch.arange(n).repeat_interleave(2),
        advantages=torch.tensor(advantages).repeat_interleave(2),
        completion_tokens=torch.full((n,), 2.0),
        n_sequences=n,
        n_tokens=2 * n,
    )


def trl_loss(tokens: SampledTokens, importance_ratio_C: Tensor | None = None, **settings: Any) -> tuple[Tensor, Tensor]:
    """TRL's `GRPOTrainer._compute_loss` with `settings` on the same numbers, padded; loss and its gradient C."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    ids = tokens.sequence_ids
    column = torch.cat([torch.arange(n) for n in tokens.completion_tokens.int()])
    shape = (len(tokens.completion_tokens), int(tokens.completion_tokens.max()))

    def padded(values: Tensor) -> Tensor:
        return torch.zeros(shape, dtype=values.dtype).index_put((ids, column), values)

    mask = padded(torch.ones(len(ids), dtype=torch.float64))
    policy = padded(tokens.policy_logprobs.detach()).requires_grad_()
    defaults = {
        "importance_sampling_level": "token",
        "loss_type": "grpo",
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "beta": 0.0,
        "max_completion_length": shape[1],
    }
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (policy, torch.zeros(shape), None),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        aux_loss_enabled=False,
        current_gradient_accumulation_steps=1.0,
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=importance_ratio_C is not None,
        vllm_importance_sampling_correction=True,
        **(defaults | settings),
    )
    inputs = {  # prompts, ids and model are not looked at: the log-probs come from the line above
        "prompt_ids": torch.zeros(shape[0], 1, dtype=torch.long),
        "prompt_mask": torch.ones(shape[0], 1),
        "completion_ids": torch.zeros(shape, dtype=torch.long),
        "completion_mask": mask,
        "advantages": sequence_advantages(tokens),
        "old_per_token_logps": padded(tokens.old_logprobs),
        "ref_per_token_logps": padded(tokens.ref_logprobs),
        "num_items_in_batch": torch.tensor(float(tokens.n_tokens), dtype=torch.float64),
    }
    if importance_ratio_C is not None:
        inputs["importance_sampling_ratio"] = padded(importance_ratio_C)
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return loss.detach(), policy.grad[ids, column]
