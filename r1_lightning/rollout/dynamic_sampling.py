"""Dynamic sampling (DAPO, arXiv:2503.14476, section 3.2): sample until every group of the rollout has a learning signal.

A group whose rewards are all equal has advantage 0, and completions that the length limit cut off may be masked out; the better the
model, the larger the share of such groups. So we sample more prompts and keep the groups with a learning signal; only if the
attempts run out do others fill the rollout. DAPO looks at accuracy alone; here the whole reward decides, because the advantages
come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from r1_lightning.functional.advantages import zero_variance_groups
from r1_lightning.rollout.generations import joined, rows_of
from r1_lightning.rollout.results import Rollout
from r1_lightning.types.tensors import Drafts

# Shape legend: P prompts, G completions per prompt, R = P * G rows.


def until_informative(
    draw: Callable[[int], Rollout], n_groups: int, attempts: int, pad_id: int, train_on_truncated: bool = True
) -> Rollout:
    """Return the first `n_groups` groups with a learning signal from at most `attempts` rollouts `draw(0)`, `draw(1)`, ..."""
    kept: list[Rollout] = []
    spare: list[Rollout] = []
    drawn, timeouts, drafts = 0, 0, Drafts()
    for attempt in range(attempts):
        rollout = draw(attempt)
        drawn += len(rollout.problems)
        drafts += rollout.drafts
        timeouts += rollout.timeouts
        teaches_P = teaching_groups(rollout, train_on_truncated)
        kept.append(select_groups(rollout, teaches_P))
        spare.append(select_groups(rollout, ~teaches_P))
        if sum(len(part.problems) for part in kept) >= n_groups:
            break
    together = joined_rollouts([*kept, *spare], pad_id)
    first_P = torch.arange(len(together.problems)) < n_groups
    return replace(select_groups(together, first_P), drawn_groups=drawn, drafts=drafts, timeouts=timeouts)


def teaching_groups(rollout: Rollout, train_on_truncated: bool) -> Tensor:
    """P booleans: True if a group's rewards are finite and differ, and a completion in the loss has an advantage other than 0."""
    teaches_R = (rollout.advantages != 0).any(1) & (rollout.generation.finished | train_on_truncated)
    differs_P = rollout.is_judged & ~zero_variance_groups(rollout.rewards)
    return differs_P & teaches_R.view(rollout.rewards.shape).any(1)


def select_groups(rollout: Rollout, keep_P: Tensor) -> Rollout:
    """Return the rollout of the groups where `keep_P` is True, in order."""
    groups = keep_P.nonzero().squeeze(1)
    group_size = rollout.group_size
    rows = (groups.unsqueeze(1) * group_size + torch.arange(group_size)).flatten()
    numbers = groups.tolist()
    return replace(
        rollout,
        problems=[rollout.problems[group] for group in numbers],
        prompts=[rollout.prompts[group] for group in numbers],
        texts=[rollout.texts[row] for row in rows.tolist()],
        generation=rows_of(rollout.generation, rows),
        rewards=rollout.rewards[groups],
        parts={name: scores[groups] for name, scores in rollout.parts.items()},
        advantages=rollout.advantages[rows],
        reasons={name: [why[row] for row in rows.tolist()] for name, why in rollout.reasons.items()},
    )


def joined_rollouts(parts: Sequence[Rollout], pad_id: int) -> Rollout:
    """Concatenate several rollouts of one policy."""
    first = parts[0]
    width = max(part.advantages.shape[1] for part in parts)
    return replace(
        first,
        problems=[problem for part in parts for problem in part.problems],
        prompts=[prompt for part in parts for prompt in part.prompts],
        texts=[text for part in parts for text in part.texts],
        generation=joined([part.generation for part in parts], pad_id),
        rewards=torch.cat([part.rewards for part in parts]),
        parts={name: torch.cat([part.parts[name] for part in parts]) for name in first.parts},
        advantages=torch.cat([pad(part.advantages, (0, width - part.advantages.shape[1])) for part in parts]),
        reasons={name: [why for part in parts for why in part.reasons[name]] for name in first.reasons},
    )
