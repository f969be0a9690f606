"""Judging completions: scores by every reward function, and from them the advantage of every completion token.

Outcome supervision gives all tokens of a completion its group-relative advantage. Process supervision, where the reward has
`steps`, gives each token the sum over the steps that end at it or later (DeepSeekMath section 4.1.3); the completion's outcome
is its last step, as a process reward model judges the answer last.

A score that is None or no number stops the run; with `on_bad_score: drop_group` its group is left out of the update instead
(advantage 0 for all of it) and counted in `rollout/unjudged_fraction`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from r1_lightning.functional.advantages import group_relative_advantages, per_token, process_advantages
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.tensors import Generation
from r1_lightning.types.text import Completion, Problem, StepRewardFunction

# Shape legend: P prompts, G completions per prompt, R = P * G rows, T positions of a completion.


@dataclass(frozen=True)
class Judged:
    """`rewards` and each of `parts` P x G (NaN where a reward gave no number and the group is dropped); advantages R x T.

    `timeouts` counts the completions of which a verdict is 0 because judging ran out of time. `reasons` holds, by the name of
    the reward, why each of the R rows got its score.
    """

    rewards: Tensor
    parts: Mapping[str, Tensor]
    advantages: Tensor
    timeouts: int = 0
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """Judges the completions of P problems, `group_size` each; `advantage_scale` as in `functional.advantages.SCALES`."""

    reward: WeightedSum
    tokenizer: TextTokenizer
    group_size: int
    advantage_scale: str = "population"

    def __call__(
        self, problems: Sequence[Problem], texts: Sequence[str], generation: Generation, step: int = 0
    ) -> Judged:
        """Row r belongs to problem r // group_size; `step` is the optimizer step, for rewards that join later."""
        rows = [problem for problem in problems for _ in range(self.group_size)]
        completions = completions_of(texts, generation)
        verdicts = self.reward.judge_many(list(zip(rows, completions, strict=True)), step)
        shape = (len(problems), self.group_size)
        parts = {
            name: torch.tensor([float(verdict.verdicts[name].score) for verdict in verdicts]).view(shape)
            for name in verdicts[0].verdicts
        }
        rewards = torch.tensor([verdict.total for verdict in verdicts]).view(shape)
        judged = rewards.isfinite().all(1)
        known = torch.where(judged.unsqueeze(1), rewards, 0.0)
        mask = generation.completion_mask
        if self.reward.steps is None:
            advantages = per_token(group_relative_advantages(known, self.advantage_scale), mask)
        else:
            advantages = self._by_steps(self.reward.steps, rows, completions, generation, known)
        in_judged = judged.repeat_interleave(self.group_size).unsqueeze(1)
        timeouts = sum(verdict.timed_out for verdict in verdicts)
        reasons = {name: [verdict.verdicts[name].reason for verdict in verdicts] for name in parts}
        return Judged(rewards, parts, torch.where(in_judged & mask, advantages, 0.0), timeouts, reasons)

    def _by_steps(
        self,
        judge_steps: StepRewardFunction,
        problems: Sequence[Problem],
        completions: Sequence[Completion],
        generation: Generation,
        outcomes_PG: Tensor,
    ) -> Tensor:
        rewards: list[float] = []
        rows: list[int] = []
        ends: list[int] = []
        lengths = generation.completion_mask.sum(1).tolist()
        for row, (problem, completion, length) in enumerate(zip(problems, completions, lengths, strict=True)):
            ids = generation.completion_ids[row, :length].tolist()
            verdicts = judge_steps(problem, completion)
            rewards += [verdict.score for verdict in verdicts] + [float(outcomes_PG.flatten()[row])]
            ends += [last_token(ids, verdict.end, self.tokenizer) for verdict in verdicts] + [length - 1]
            rows += [row] * (len(verdicts) + 1)
        shape = (generation.completion_mask.shape[0], generation.completion_mask.shape[1])
        numbers = torch.tensor(rewards), torch.tensor(rows), torch.tensor(ends)
        return process_advantages(*numbers, self.group_size, shape, self.advantage_scale)


def completions_of(texts: Sequence[str], generation: Generation) -> list[Completion]:
    """What reward functions see of each row: its text, its length in tokens (EOS included), whether it ended by itself."""
    lengths, finished = generation.completion_mask.sum(1).tolist(), generation.finished.tolist()
    return [Completion(*row) for row in zip(texts, lengths, finished, strict=True)]


def last_token(ids: Sequence[int], end: int, tokenizer: TextTokenizer) -> int:
    """The first token up to which the text of `ids` has at least `end` characters: where a step that ends there ends.

    By bisection: the text of a prefix grows with it.
    """
    low, high = 0, len(ids) - 1
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(ids[: middle + 1], skip_special=False)) >= end:
            high = middle
        else:
            low = middle + 1
    return low
