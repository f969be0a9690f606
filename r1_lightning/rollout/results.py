"""The results of a rollout, from the sampler to the optimizer: one frozen container that gains fields at each step.

    Samples  --judge-->  JudgedSamples  --advantage estimator-->  Rollout  --collate-->  minibatches (`GRPOBatch`)

`Samples` are problems with completions; `JudgedSamples` add each completion's rewards, and a `Rollout` adds each token's advantage.
Each class inherits from the one before, so a function that takes one also takes the later ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from r1_lightning.functional.advantages import zero_variance_groups
from r1_lightning.rollout.generations import mismatch
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.language import is_mixed
from r1_lightning.text.readability import spoken
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM
from r1_lightning.types.tensors import Drafts, Generation
from r1_lightning.types.text import Completion, Problem
from r1_lightning.types.value_targets import ValueTargets

# Shape legend: P prompts, G completions per prompt, R = P * G rows, T positions of a completion.


@dataclass(frozen=True, kw_only=True)
class Samples:
    """G completions of each of P problems; row r of R belongs to problem r // G.

    problems P; prompts P, as token ids; texts R, without the EOS at their end; generation, of R rows, has the completions' tokens
    with their log-probs (R x T) and the experts that the sampler chose.
    """

    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    texts: Sequence[str]
    generation: Generation

    @property
    def group_size(self) -> int:
        """G."""
        return len(self.generation.finished) // len(self.prompts)

    def completions(self) -> list[Completion]:
        """Return the view of reward functions on each row: text, length in tokens (EOS included), whether it ended with EOS."""
        lengths, finished = self.generation.completion_mask.sum(1).tolist(), self.generation.finished.tolist()
        return [Completion(*row) for row in zip(self.texts, lengths, finished, strict=True)]

    def pairs(self) -> list[tuple[Problem, Completion]]:
        """Return each of the R completions with its problem."""
        problem_of_row = [problem for problem in self.problems for _ in range(self.group_size)]
        return list(zip(problem_of_row, self.completions(), strict=True))


@dataclass(frozen=True, kw_only=True)
class JudgedSamples(Samples):
    """Samples with the verdicts of the reward functions.

    rewards P x G, NaN if a reward is not finite and its group is dropped; parts, each reward function's scores P x G by name;
    reasons, each reward function's reason for the score of each of the R completions, by name; timeouts counts the completions with
    a verdict of 0 because judging ran out of time.
    """

    rewards: Tensor
    parts: Mapping[str, Tensor]
    timeouts: int = 0
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def is_judged(self) -> Tensor:
        """P booleans: True if all rewards of the group are finite."""
        return self.rewards.isfinite().all(1)

    @property
    def known_rewards(self) -> Tensor:
        """The rewards P x G, 0 for all of a group that is not judged."""
        return torch.where(self.is_judged.unsqueeze(1), self.rewards, 0.0)


@dataclass(frozen=True, kw_only=True)
class Rollout(JudgedSamples):
    """Judged samples with everything that training and logging need.

    advantages R x T, of each completion token, 0 elsewhere; number, of the rollout; policy_version, the optimizer steps that the
    sampling policy had taken; drawn_groups, the number of groups sampled to fill it (P without dynamic sampling); drafts, the
    counts of drafted tokens in all of these, zero unless the sampler drafts; form, the form of completions that the template asks
    for; targets (R x T) and metrics, what an estimator with a value model leaves beside the advantages.
    """

    advantages: Tensor
    number: int
    policy_version: int
    drawn_groups: int
    drafts: Drafts = field(default_factory=Drafts)
    form: str = R1_ZERO_FORM
    targets: ValueTargets | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def unjudged(cls, prompts: Sequence[Sequence[int]], generation: Generation) -> Self:
        """Wrap P prompts and a generation of R rows, with rewards and advantages of 0, to score completions as in training."""
        rows, width = generation.completion_ids.shape
        return cls(
            problems=(),
            prompts=prompts,
            texts=(),
            generation=generation,
            rewards=torch.zeros(len(prompts), rows // len(prompts)),
            parts={},
            advantages=torch.zeros(rows, width),
            number=0,
            policy_version=0,
            drawn_groups=len(prompts),
        )

    @property
    def zero_variance_fraction(self) -> float:
        """Share (0..1) of groups whose completions all have the same reward, and so no learning signal."""
        return float(zero_variance_groups(self.rewards).float().mean())

    @property
    def reward_std(self) -> float:
        """Standard deviation of the rewards of all judged completions about their mean; 0 if there are none."""
        known = self.rewards[self.rewards.isfinite()]
        return float(known.std(correction=0)) if known.numel() else 0.0

    def summary(self) -> dict[str, float]:
        """Scalars to log, by metric name: means over completions, lengths in tokens, shares in 0..1."""
        generation = self.generation
        lengths = generation.completion_mask.sum(1).float()
        group = self.group_size
        asks_for_code = [TESTS in self.problems[number // group].metadata for number in range(len(self.texts))]
        mixed = [is_mixed(spoken(text, code)) for text, code in zip(self.texts, asks_for_code, strict=True)]
        return {
            "rollout/reward_mean": float(self.rewards.nanmean()),
            "rollout/reward_std": self.reward_std,
            **{f"rollout/{name}_mean": float(scores.nanmean()) for name, scores in self.parts.items()},
            "rollout/completion_tokens_mean": float(lengths.mean()),
            # Means over tokens, in nats. They differ with top-p, by the probability mass that it cuts off, and with another engine.
            "rollout/policy_logprob_mean": float(generation.policy_logprobs[generation.completion_mask].mean()),
            "rollout/sampler_logprob_mean": float(generation.sampler_logprobs[generation.completion_mask].mean()),
            "rollout/finished_fraction": float(generation.finished.float().mean()),
            "rollout/zero_variance_fraction": self.zero_variance_fraction,
            "rollout/unjudged_fraction": float((~self.is_judged).float().mean()),
            "rollout/drawn_groups": float(self.drawn_groups),
            # The share of all sampled completions with a verdict of 0 because the verifier ran out of time.
            "rollout/verifier_timeouts": self.timeouts / (self.drawn_groups * group),
            "rollout/mixed_language_fraction": sum(mixed) / len(mixed),
            **self._faults(),
            **self._draft_acceptance(),
            **self._mismatch(),
            **self.metrics,
        }

    def _faults(self) -> dict[str, float]:
        """The share of completions that break each rule of the form, to explain a format reward of 0."""
        form = FORMS[self.form]
        broken = Counter(fault for text in self.texts for fault in form.parse(text).faults)
        return {f"format/{fault}": broken[fault] / len(self.texts) for fault in form.faults}

    def _mismatch(self) -> dict[str, float]:
        """Mean and largest difference (nats) of the sampler's log-probs and the policy's; empty if there is none."""
        mean, largest = mismatch(self.generation)
        return {"rollout/sampler_mismatch": mean, "rollout/sampler_mismatch_max": largest} if largest else {}

    def _draft_acceptance(self) -> dict[str, float]:
        """The share (0..1) of drafted tokens that the model accepted; empty if nothing was drafted."""
        drafts = self.drafts
        return {"rollout/draft_acceptance": drafts.accepted / drafts.proposed} if drafts.proposed else {}
