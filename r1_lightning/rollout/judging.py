"""Judging completions: a score by every reward function, and their weighted sum.

A score that is None or not finite stops the run; with `on_bad_score: drop_group` its group is dropped from the update instead
(advantage 0 for all of it) and counted in `rollout/unjudged_fraction`.
"""

from __future__ import annotations

import torch

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.results import JudgedSamples, Samples


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
