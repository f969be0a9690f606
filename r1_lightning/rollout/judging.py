"""Judging completions: a score by every reward function, and their weighted sum.

A score that is None or not finite stops the run; with `on_bad_score: drop_group` its group is dropped from the update instead
(advantage 0 for all of it) and counted in `rollout/unjudged_fraction`.

Processes judge by problem: each judges the completions that it has sampled, and `joined_judged` puts the shares together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.generations import joined
from r1_lightning.rollout.results import JudgedSamples, Samples
from r1_lightning.types.text import Problem


def judge(samples: Samples, reward: WeightedSum, step: int = 0) -> JudgedSamples:
    """Judge each completion against its problem; some rewards join at a later optimizer `step`."""
    verdicts = reward.judge_many(samples.pairs(), step)
    shape = (len(samples.problems), samples.group_size)
    parts = {
        name: torch.tensor([float(verdict.verdicts[name].score) for verdict in verdicts]).view(shape)
        for name in verdicts[0].verdicts
    }
    return JudgedSamples(
        **vars(samples),
        rewards=torch.tensor([verdict.total for verdict in verdicts]).view(shape),
        parts=parts,
        timeouts=sum(verdict.timed_out for verdict in verdicts),
        reasons={name: [verdict.verdicts[name].reason for verdict in verdicts] for name in parts},
    )


def joined_judged(
    shares: Sequence[JudgedSamples], problems: Sequence[Problem], prompts: Sequence[Sequence[int]], pad_id: int
) -> JudgedSamples:
    """Return the judged samples of all `problems`, from shares (at least one) in the order of the problems."""
    first = shares[0]
    return JudgedSamples(
        problems=problems,
        prompts=prompts,
        texts=[text for share in shares for text in share.texts],
        generation=joined([share.generation for share in shares], pad_id),
        rewards=torch.cat([share.rewards for share in shares]),
        parts={name: torch.cat([share.parts[name] for share in shares]) for name in first.parts},
        timeouts=sum(share.timeouts for share in shares),
        reasons={name: [why for share in shares for why in share.reasons[name]] for name in first.reasons},
    )
