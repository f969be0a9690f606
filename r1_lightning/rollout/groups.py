"""A rollout: G completions for each of P prompts, judged and turned into group-relative advantages.

R1-Zero's numbers (Nature supplement, B.4): 32 questions x 16 outputs per step, 8,192 outputs per rollout split into 16
minibatches. `RolloutConfig` holds the same numbers for any size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from r1_lightning.functional.advantages import SCALES, zero_variance_groups
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.judging import Judge
from r1_lightning.rollout.mtp_drafts import drafts_of
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.sampler import Sampler, SamplerMaker, SamplingConfig
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.language import is_mixed
from r1_lightning.text.readability import spoken
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require, require_choice, require_int
from r1_lightning.types.tensors import Drafts, GenerateFn, Generation
from r1_lightning.types.text import Problem

# Shape legend: P prompts, G completions per prompt, R = P * G rows.


@dataclass(frozen=True)
class RolloutConfig:
    """How rollouts are drawn and dealt.

    `prompts_per_rollout` P prompts with `group_size` G completions each, in `minibatches_per_rollout` minibatches of one
    optimizer step, each computed in `micro_batches` parts (fewer tokens at a time: memory, and the speed of caches); training
    rows of `row_tokens`; at most `max_rows` completions are decoded at a time. `advantage_scale` is
    what a group's advantages are divided by: its population std, its sample std, or none (Dr. GRPO). Up to
    `dynamic_sampling_attempts` times as many prompts are sampled to fill the rollout with groups whose rewards differ (DAPO; 1
    is off). Without `train_on_truncated`, completions that the length limit cut off are masked out of the loss. The sampling
    fields are those of `SamplingConfig`; from optimizer step `longer_from_step` on, `longer_max_new_tokens` is the limit.
    `sampler` makes what draws the completions, by default our own `Sampler` (others: `vllm_sampler.VLLM`, `mtp_drafts.MTPDrafts`).
    """

    prompts_per_rollout: int = 32
    group_size: int = 16
    minibatches_per_rollout: int = 1
    micro_batches: int = 1
    sampling_temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    row_tokens: int = 128
    max_rows: int = 512
    advantage_scale: str = "population"
    dynamic_sampling_attempts: int = 1
    train_on_truncated: bool = True
    longer_from_step: int | None = None
    longer_max_new_tokens: int | None = None
    sampler: SamplerMaker = Sampler

    def __post_init__(self) -> None:
        require_int("rollout.prompts_per_rollout", self.prompts_per_rollout, 1)
        require_int("rollout.group_size", self.group_size, 2)
        require_int("rollout.minibatches_per_rollout", self.minibatches_per_rollout, 1)
        require_int("rollout.micro_batches", self.micro_batches, 1)
        require_int("rollout.row_tokens", self.row_tokens, 2)
        require_int("rollout.max_rows", self.max_rows, 1)
        require_choice("rollout.advantage_scale", self.advantage_scale, SCALES)
        require_int("rollout.dynamic_sampling_attempts", self.dynamic_sampling_attempts, 1)
        truncated = self.train_on_truncated
        require(isinstance(truncated, bool), "rollout.train_on_truncated", truncated, "true or false")
        self._check_longer()
        require(callable(self.sampler), "rollout.sampler", self.sampler, "a node with a _target_, as in rollout=vllm")
        rows = self.prompts_per_rollout * self.group_size
        require(
            rows % self.minibatches_per_rollout == 0,
            "rollout.minibatches_per_rollout",
            self.minibatches_per_rollout,
            f"it must divide prompts_per_rollout * group_size = {rows}",
        )
        _ = self.sampling  # checks the sampling fields
        require(
            self.row_tokens > self.longest_completion,
            "rollout.row_tokens",
            self.row_tokens,
            f"a row must hold a prompt and max_new_tokens = {self.longest_completion}",
        )

    def _check_longer(self) -> None:
        start, limit = self.longer_from_step, self.longer_max_new_tokens
        both = (start is None) == (limit is None)
        require(both, "rollout.longer_max_new_tokens", limit, "set it together with longer_from_step, or neither")
        if start is not None:
            require_int("rollout.longer_from_step", start, 0)
            require_int("rollout.longer_max_new_tokens", limit, self.max_new_tokens)

    @property
    def longest_completion(self) -> int:
        """The length limit at the end of training, in tokens."""
        return self.longer_max_new_tokens or self.max_new_tokens

    def max_new_tokens_at(self, step: int) -> int:
        """The length limit at an optimizer step: R1-Zero went from 32,768 to 65,536 tokens at step 8.2k (section 2.1)."""
        is_longer = self.longer_from_step is not None and step >= self.longer_from_step
        return self.longest_completion if is_longer else self.max_new_tokens

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(self.sampling_temperature, self.top_p, self.max_new_tokens)


@dataclass(frozen=True)
class Rollout:
    """Judged completions of one rollout, with what is needed to train on them and to show them.

    `rewards` are P x G; `parts` holds each reward function's scores P x G under its name; `advantages` are per completion
    token, R x T, 0 elsewhere. `drawn_groups` counts the groups that were sampled to fill it, P without dynamic sampling.
    `drafts` counts what was drafted while all of these were sampled: nothing, unless the sampler drafts. `reasons` says, by the
    name of the reward function, why each of the R completions got its score. `form` is the form that the template asks for.
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
    drawn_groups: int
    drafts: Drafts = field(default_factory=Drafts)
    timeouts: int = 0
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict)
    form: str = R1_ZERO_FORM

    @property
    def zero_variance_fraction(self) -> float:
        """Share of groups whose completions all got the same reward: they teach nothing. 0..1."""
        return float(zero_variance_groups(self.rewards).float().mean())

    def summary(self) -> dict[str, float]:
        """Scalars to log, by metric name: means over completions, lengths in tokens, shares in 0..1."""
        generation = self.generation
        lengths = generation.completion_mask.sum(1).float()
        group = self.rewards.shape[1]
        asks_for_code = [TESTS in self.problems[number // group].metadata for number in range(len(self.texts))]
        mixed = [is_mixed(spoken(text, code)) for text, code in zip(self.texts, asks_for_code, strict=True)]
        return {
            "rollout/reward_mean": float(self.rewards.nanmean()),
            **{f"rollout/{name}_mean": float(scores.nanmean()) for name, scores in self.parts.items()},
            "rollout/completion_tokens_mean": float(lengths.mean()),
            # Over tokens, in nats. They differ under top-p alone: by how much is the mass that it cuts off.
            "rollout/policy_logprob_mean": float(generation.policy_logprobs[generation.completion_mask].mean()),
            "rollout/sampler_logprob_mean": float(generation.sampler_logprobs[generation.completion_mask].mean()),
            "rollout/finished_fraction": float(generation.finished.float().mean()),
            "rollout/zero_variance_fraction": self.zero_variance_fraction,
            "rollout/unjudged_fraction": float((~self.rewards.isfinite().all(1)).float().mean()),
            "rollout/drawn_groups": float(self.drawn_groups),
            # Of all that were drawn: completions with a verdict of 0 because the verifier ran out of time.
            "rollout/verifier_timeouts": self.timeouts / (self.drawn_groups * self.rewards.shape[1]),
            "rollout/mixed_language_fraction": sum(mixed) / len(mixed),
            **self._faults(),
            **self._draft_acceptance(),
        }

    def _faults(self) -> dict[str, float]:
        """The share of completions that break each rule of the form, so that a format reward of 0 explains itself."""
        form = FORMS[self.form]
        broken = Counter(fault for text in self.texts for fault in form.parse(text).faults)
        return {f"format/{fault}": broken[fault] / len(self.texts) for fault in form.faults}

    def _draft_acceptance(self) -> dict[str, float]:
        """The share of drafted tokens that the model drew itself, 0..1; nothing where nothing was drafted."""
        drafts = self.drafts
        return {"rollout/draft_acceptance": drafts.accepted / drafts.proposed} if drafts.proposed else {}


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
    ended = [row[:-1] if row and row[-1] in tokenizer.eos_ids else row for row in ids]
    return tokenizer.decode_batch(ended, skip_special=False)


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
        config = self.config
        prompts = self.prompts(problems)
        keys = rollout_keys(number, len(prompts), config.group_size)
        generation = self.generate(prompts, config.group_size, keys, config.max_new_tokens_at(policy_version))
        texts = completion_texts(generation, self.tokenizer)
        judge = Judge(self.reward, self.tokenizer, config.group_size, config.advantage_scale)
        judged = judge(problems, texts, generation, policy_version)
        return Rollout(
            number,
            policy_version,
            problems,
            prompts,
            texts,
            generation,
            judged.rewards,
            judged.parts,
            judged.advantages,
            drawn_groups=len(problems),
            drafts=drafts_of(self.generate),
            timeouts=judged.timeouts,
            reasons=judged.reasons,
            form=self.template.form,
        )

    def prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        """The problems' prompts as token ids; `InvalidInput` where one leaves no room for `max_new_tokens` in a row."""
        prompts = prompt_ids(problems, self.tokenizer, self.template)
        longest, new = max(map(len, prompts)), self.config.longest_completion
        require(
            longest + new <= self.config.row_tokens,
            "rollout.row_tokens",
            self.config.row_tokens,
            f"a prompt of {longest} tokens with max_new_tokens = {new} needs a row of {longest + new}",
        )
        return prompts
