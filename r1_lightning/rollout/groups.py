"""A rollout: G completions for each of P prompts, judged and turned into group-relative advantages.

R1-Zero's numbers (Nature supplement, B.4): 32 questions x 16 outputs per step, 8,192 outputs per rollout split into 16
minibatches. `RolloutConfig` holds the same numbers for any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r1_lightning.functional.advantages import SCALES, group_relative_advantages, per_token, zero_variance_groups
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.sampler import SamplingConfig
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.language import is_mixed
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require, require_choice, require_int
from r1_lightning.types.tensors import GenerateFn, Generation
from r1_lightning.types.text import Completion, Problem

# Shape legend: P prompts, G completions per prompt, R = P * G rows.


@dataclass(frozen=True)
class RolloutConfig:
    """How rollouts are drawn and dealt.

    `prompts_per_rollout` P prompts with `group_size` G completions each, in `minibatches_per_rollout` minibatches of one
    optimizer step; training rows of `row_tokens`; at most `max_rows` completions are decoded at a time. `advantage_scale` is
    what a group's advantages are divided by: its population std, its sample std, or none (Dr. GRPO). The sampling fields are
    those of `SamplingConfig`.
    """

    prompts_per_rollout: int = 32
    group_size: int = 16
    minibatches_per_rollout: int = 1
    sampling_temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    row_tokens: int = 128
    max_rows: int = 512
    advantage_scale: str = "population"

    def __post_init__(self) -> None:
        require_int("rollout.prompts_per_rollout", self.prompts_per_rollout, 1)
        require_int("rollout.group_size", self.group_size, 2)
        require_int("rollout.minibatches_per_rollout", self.minibatches_per_rollout, 1)
        require_int("rollout.row_tokens", self.row_tokens, 2)
        require_int("rollout.max_rows", self.max_rows, 1)
        require_choice("rollout.advantage_scale", self.advantage_scale, SCALES)
        rows = self.prompts_per_rollout * self.group_size
        require(
            rows % self.minibatches_per_rollout == 0,
            "rollout.minibatches_per_rollout",
            self.minibatches_per_rollout,
            f"it must divide prompts_per_rollout * group_size = {rows}",
        )
        _ = self.sampling  # checks the sampling fields
        require(
            self.row_tokens > self.max_new_tokens,
            "rollout.row_tokens",
            self.row_tokens,
            f"a row must hold a prompt and max_new_tokens = {self.max_new_tokens}",
        )

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(self.sampling_temperature, self.top_p, self.max_new_tokens)


@dataclass(frozen=True)
class Rollout:
    """Judged completions of one rollout, with what is needed to train on them and to show them.

    `rewards` are P x G; `parts` holds each reward function's scores P x G under its name; `advantages` are per completion
    token, R x T, 0 elsewhere.
    """

    number: int
    policy_version: int
    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    texts: Sequence[str]
    generation: Generation
    rewards: Tensor
    parts: Mapping[str, Tensor]
    advantages: Tensor

    @property
    def zero_variance_fraction(self) -> float:
        """Share of groups whose completions all got the same reward: they teach nothing. 0..1."""
        return float(zero_variance_groups(self.rewards).float().mean())

    def summary(self) -> dict[str, float]:
        """Scalars to log, by metric name: means over completions, lengths in tokens, shares in 0..1."""
        generation = self.generation
        lengths = generation.completion_mask.sum(1).float()
        mixed = [is_mixed(text) for text in self.texts]
        return {
            "rollout/reward_mean": float(self.rewards.mean()),
            **{f"rollout/{name}_mean": float(scores.mean()) for name, scores in self.parts.items()},
            "rollout/completion_tokens_mean": float(lengths.mean()),
            # Over tokens, in nats. They differ under top-p alone: by how much is the mass that it cuts off.
            "rollout/policy_logprob_mean": float(generation.policy_logprobs[generation.completion_mask].mean()),
            "rollout/sampler_logprob_mean": float(generation.sampler_logprobs[generation.completion_mask].mean()),
            "rollout/finished_fraction": float(generation.finished.float().mean()),
            "rollout/zero_variance_fraction": self.zero_variance_fraction,
            "rollout/mixed_language_fraction": sum(mixed) / len(mixed),
        }


def rollout_keys(number: int, prompts: int, group_size: int) -> Tensor:
    """Keys (rollout, prompt, sample) of all R = P * G rows, R x 3: what decides their draws."""
    rows = torch.arange(prompts * group_size)
    return torch.stack([torch.full_like(rows, number), rows // group_size, rows % group_size], dim=1)


def completion_texts(generation: Generation, tokenizer: TextTokenizer) -> list[str]:
    """The completions as text, without the EOS at their end.

    Any other special token is shown: a completion that strews padding into its answer must not be judged as if it had not.
    """
    lengths = generation.completion_mask.sum(1).tolist()
    ids = [row[:length] for row, length in zip(generation.completion_ids.tolist(), lengths, strict=True)]
    ended = [row[:-1] if row and row[-1] == tokenizer.eos_id else row for row in ids]
    return tokenizer.decode_batch(ended, skip_special=False)


def judge(
    problems: Sequence[Problem], texts: Sequence[str], generation: Generation, reward: WeightedSum, group_size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rewards P x G and each part's scores P x G; row r belongs to problem r // group_size."""
    lengths, finished = generation.completion_mask.sum(1).tolist(), generation.finished.tolist()
    verdicts = [
        reward(problems[row // group_size], Completion(text, lengths[row], finished[row]))
        for row, text in enumerate(texts)
    ]
    shape = (len(problems), group_size)
    parts = {
        name: torch.tensor([float(verdict.verdicts[name].score) for verdict in verdicts]).view(shape)
        for name in verdicts[0].verdicts
    }
    return torch.tensor([verdict.total for verdict in verdicts]).view(shape), parts


@dataclass(frozen=True)
class RolloutMaker:
    """Makes rollout number n from the problems given to it: sample, decode, judge, compare within groups."""

    generate: GenerateFn
    tokenizer: TextTokenizer
    template: ChatTemplate
    reward: WeightedSum
    config: RolloutConfig

    def __call__(self, number: int, policy_version: int, problems: Sequence[Problem]) -> Rollout:
        """`problems` are the P problems of this rollout; `policy_version` is the optimizer step the sampler stands at.

        Raises `InvalidInput`, before anything is sampled, where a prompt leaves no room for `max_new_tokens` in a row.
        """
        group_size = self.config.group_size
        prompts = self.prompts(problems)
        generation = self.generate(prompts, group_size, rollout_keys(number, len(prompts), group_size))
        texts = completion_texts(generation, self.tokenizer)
        rewards, parts = judge(problems, texts, generation, self.reward, group_size)
        advantages = per_token(
            group_relative_advantages(rewards, self.config.advantage_scale), generation.completion_mask
        )
        return Rollout(number, policy_version, problems, prompts, texts, generation, rewards, parts, advantages)

    def prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        """The problems' prompts as token ids; `InvalidInput` where one leaves no room for `max_new_tokens` in a row."""
        prompts = self.tokenizer.encode_batch([self.template.render(problem.question) for problem in problems])
        longest, new = max(map(len, prompts)), self.config.max_new_tokens
        require(
            longest + new <= self.config.row_tokens,
            "rollout.row_tokens",
            self.config.row_tokens,
            f"a prompt of {longest} tokens with max_new_tokens = {new} needs a row of {longest + new}",
        )
        return prompts
