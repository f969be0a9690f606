"""Makes a rollout: samples G completions for each of P prompts, judges them, and estimates advantages.

R1-Zero's numbers (Nature supplement, B.4): 32 questions x 16 outputs per step, 8,192 outputs per rollout split into 16
minibatches. `RolloutConfig` holds the same numbers for any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from r1_lightning.functional.advantages import SCALES
from r1_lightning.model.continued_rows import OWN_PROMPT_TOKENS
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.advantage_estimators import AdvantageEstimator, estimate_of, estimator_of
from r1_lightning.rollout.judging import joined_judged, judge
from r1_lightning.rollout.mtp_drafts import drafts_of
from r1_lightning.rollout.native_sampler import NativeSampler
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.results import JudgedSamples, Rollout, Samples
from r1_lightning.rollout.sampler import SamplerMaker, SamplerSettings, SamplingConfig
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require, require_choice, require_int
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import Drafts, GenerateFn, Generation
from r1_lightning.types.text import Problem

# Shape legend: P prompts, G completions per prompt, R = P * G rows.

# Sharing pays by the prompt's share of the tokens. The miniature's prompts of some ten tokens stay in documents of their own.
SHARED_FROM_TOKENS = 64


@dataclass(frozen=True)
class RolloutConfig:
    """Settings of rollouts: sampling, groups, minibatches.

    `prompts_per_rollout` P prompts with `group_size` G completions each, in `minibatches_per_rollout` minibatches of one
    optimizer step, each computed in `micro_batches` parts (fewer tokens at a time: memory, and the speed of caches); training
    rows of `row_tokens`; at most `max_rows` completions are decoded at a time. `advantage_scale` is
    what a group's advantages are divided by: its population std, its sample std, or none (Dr. GRPO). Up to
    `dynamic_sampling_attempts` times as many prompts are sampled to fill the rollout with groups whose rewards differ (DAPO; 1
    is off). Without `train_on_truncated`, completions that the length limit cut off are masked out of the loss. The sampling
    fields are those of `SamplingConfig`; from optimizer step `longer_from_step` on, `longer_max_new_tokens` is the limit.
    `sampler` makes what draws the completions, by default our own: `NativeSampler` (others: `sampler.Eager`,
    `refilled.Refilled`, `mtp_drafts.MTPDrafts`, `vllm_sampler.VLLM`).
    `advantages` turns rewards into advantages; None is R1's comparison within the group (others: `advantage_estimators`).
    Completions of a minibatch share a prompt of at least `share_prompts_from` tokens in training (None: never): the numbers are
    the same to rounding (`shared_prompts`). `minibatch_of` completions, dealt one by one as in R1, or of whole groups, whose
    completions then all share.
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
    sampler: SamplerMaker = NativeSampler
    advantages: AdvantageEstimator | None = None
    share_prompts_from: int | None = SHARED_FROM_TOKENS
    minibatch_of: str = "completions"

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
        self._check_advantages()
        rows = self.prompts_per_rollout * self.group_size
        require(
            rows % self.minibatches_per_rollout == 0,
            "rollout.minibatches_per_rollout",
            self.minibatches_per_rollout,
            f"it must divide prompts_per_rollout * group_size = {rows}",
        )
        self._check_sharing()
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

    def _check_advantages(self) -> None:
        """Raise `InvalidInput` for settings of the comparison within a group beside an estimator without one."""
        if self.advantages is not None:
            given = callable(self.advantages)
            require(given, "rollout.advantages", self.advantages, "a node with a _target_, as in objective=rloo")
            allowed = f"with rollout.advantages={type(self.advantages).__name__} it must be none"
            require(self.advantage_scale == "none", "rollout.advantage_scale", self.advantage_scale, allowed)
            compares = not getattr(self.advantages, "needs_value_model", False)
            attempts, allowed = (
                self.dynamic_sampling_attempts,
                "it must be 1: a value model's advantages compare no groups",
            )
            require(compares or attempts == 1, "rollout.dynamic_sampling_attempts", attempts, allowed)

    def _check_sharing(self) -> None:
        if self.share_prompts_from is not None:
            require_int("rollout.share_prompts_from", self.share_prompts_from, OWN_PROMPT_TOKENS + 1)
        require_choice("rollout.minibatch_of", self.minibatch_of, ("completions", "groups"))
        if self.minibatch_of == "groups":
            fits = self.prompts_per_rollout % self.minibatches_per_rollout == 0
            allowed = (
                f"with rollout.minibatch_of=groups it must divide prompts_per_rollout = {self.prompts_per_rollout}"
            )
            require(fits, "rollout.minibatches_per_rollout", self.minibatches_per_rollout, allowed)

    @property
    def dealt_together(self) -> int:
        """How many completions in a row go into the same minibatch."""
        return self.group_size if self.minibatch_of == "groups" else 1

    @property
    def longest_completion(self) -> int:
        """The length limit at the end of training, in tokens."""
        return self.longer_max_new_tokens or self.max_new_tokens

    def max_new_tokens_at(self, step: int) -> int:
        """The length limit at an optimizer step: R1-Zero raised it from 32,768 to 65,536 tokens at step 8.2k (section 2.1)."""
        is_longer = self.longer_from_step is not None and step >= self.longer_from_step
        return self.longest_completion if is_longer else self.max_new_tokens

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(self.sampling_temperature, self.top_p, self.max_new_tokens)

    def sampler_settings(self, tokenizer: TextTokenizer, seed: int, record_routes: bool = False) -> SamplerSettings:
        """Return the settings for a sampler of this run, with the token ids of the policy's (or a judge's) `tokenizer`."""
        ids = (tokenizer.eos_ids, tokenizer.pad_id)
        return SamplerSettings(self.sampling, *ids, seed, self.max_rows, record_routes)


def rollout_keys(number: int, prompts: int, group_size: int) -> Tensor:
    """Return the keys (rollout, prompt, sample) of all R = P * G rows, R x 3, which determine their random draws."""
    rows = torch.arange(prompts * group_size)
    return torch.stack([torch.full_like(rows, number), rows // group_size, rows % group_size], dim=1)


def own_rows(own: Sequence[int], copies: int) -> list[int]:
    """Return the numbers of the rows that continue the prompts `own`, `copies` rows each."""
    return [prompt * copies + copy for prompt in own for copy in range(copies)]


def completion_texts(generation: Generation, tokenizer: TextTokenizer) -> list[str]:
    """Return the completions as text, without their final EOS.

    Other special tokens stay visible: a completion with padding tokens inside its answer must not be judged as if it had none.
    """
    lengths = generation.completion_mask.sum(1).tolist()
    ids = [row[:length] for row, length in zip(generation.completion_ids.tolist(), lengths, strict=True)]
    ended = [row[:-1] if row and row[-1] in tokenizer.eos_ids else row for row in ids]
    return tokenizer.decode_batch(ended, skip_special=False)


@dataclass(frozen=True)
class RolloutMaker:
    """Makes rollout number n from given problems: sample, decode, judge, estimate advantages.

    Each process samples and judges its share of the problems; every one of them gets the whole rollout.
    """

    generate: GenerateFn
    tokenizer: TextTokenizer
    template: ChatTemplate
    reward: WeightedSum
    config: RolloutConfig
    processes: Processes = ONE

    @cached_property
    def estimator(self) -> AdvantageEstimator:
        """The advantage estimator. `InvalidInput` if the reward judges steps and the configured estimator is for outcomes."""
        config = self.config
        return estimator_of(config.advantages, config.advantage_scale, self.reward, self.tokenizer)

    def __call__(self, number: int, policy_version: int, problems: Sequence[Problem]) -> Rollout:
        """`problems` are the P problems of this rollout; `policy_version` is the number of optimizer steps behind the policy.

        Raises `InvalidInput`, before sampling, if a prompt leaves no room for `max_new_tokens` in a row.
        """
        prompts = self.prompts(problems)
        own = self.processes.share(range(len(problems)))
        # A signal, or a reward that refuses a completion, ends it in all processes: they meet only behind it.
        work = partial(self._share, number, policy_version, own, problems, prompts)
        share, drafts = STOP.together(work, self.processes.any, self.processes.collect)
        shares = self.processes.gather(share)
        judged = joined_judged(shares, problems, prompts, self.tokenizer.pad_id)
        return Rollout(
            **vars(judged),
            **vars(estimate_of(self.estimator, judged)),
            number=number,
            policy_version=policy_version,
            drawn_groups=len(problems),
            drafts=sum(self.processes.collect(drafts), Drafts()),
            form=self.template.form,
        )

    def _share(
        self,
        number: int,
        policy_version: int,
        own: Sequence[int],
        problems: Sequence[Problem],
        prompts: Sequence[Sequence[int]],
    ) -> tuple[list[JudgedSamples], Drafts]:
        """Return the judged samples of the problems `own`, without the problems themselves; an empty list if there are none."""
        config, copies = self.config, self.config.group_size
        keys = rollout_keys(number, len(prompts), copies)[own_rows(own, copies)]
        asked = [prompts[place] for place in own]
        # Also without a prompt: a policy in pieces is put together by all processes.
        generation = self.generate(asked, copies, keys, config.max_new_tokens_at(policy_version))
        drafts = drafts_of(self.generate)
        if not asked:
            return [], drafts
        texts = completion_texts(generation, self.tokenizer)
        samples = Samples(
            problems=[problems[place] for place in own], prompts=asked, texts=texts, generation=generation
        )
        judged = judge(samples, self.reward, policy_version)
        return [replace(judged, problems=(), prompts=())], drafts  # every process knows those already

    def prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        """Return the problems' prompts as token ids; `InvalidInput` if one leaves no room for `max_new_tokens` in a row."""
        prompts = prompt_ids(problems, self.tokenizer, self.template)
        longest, new = max(map(len, prompts)), self.config.longest_completion
        require(
            longest + new <= self.config.row_tokens,
            "rollout.row_tokens",
            self.config.row_tokens,
            f"a prompt of {longest} tokens with max_new_tokens = {new} needs a row of {longest + new}",
        )
        return prompts
