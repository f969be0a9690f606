"""What judges the answers of a task: `task.judge`, and the accuracy reward that each name stands for.

    exact           numbers as fractions, other answers as normalised text (`rewards.accuracy`)
    math            the same, and formulas, sets, units, boxes (`rewards.math_reward`); what is right exactly is right here
    code            programs, by running them on their tests (`rewards.code_reward`); what has no tests, exactly
    reasoning_gym   the scorer of the problem's own generator (`rewards.task_scorer`)

A published model answers AIME with `\\boxed{42}`, which the exact rule scores 0: a run on the wrong judge learns nothing and says
nothing. So a task names its judge, a reward names the judges that it serves as (`judges`), and `run.checks.rewards` compares the
two before anything is made. A reward of somebody's own that names none is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import get_args

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.code_reward import CodeReward
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.rewards.task_accuracy import TaskAccuracy
from r1_lightning.rewards.task_scorer import TaskScorer
from r1_lightning.text.reasoning_format import R1_FORM, R1_OPENED_FORM, R1_ZERO_FORM, FormName
from r1_lightning.types.errors import require_choice
from r1_lightning.types.text import JudgeName, RewardFunction

JUDGES: tuple[JudgeName, ...] = get_args(JudgeName)
EXACT: JudgeName = "exact"

# The option of configs/reward for a judge, by the form of completions; None: put the judge's class under reward.rewards.accuracy.
OPTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        R1_ZERO_FORM: {"exact": "r1_zero", "math": "math", "code": "code", "reasoning_gym": "reasoning_gym"},
        R1_FORM: {"exact": "r1", "math": "r1_math", "code": "r1_code"},
        R1_OPENED_FORM: {"exact": "r1_opened", "math": "r1_opened"},
    }
)

_CLASSES: Mapping[str, type] = MappingProxyType(
    {"exact": AccuracyReward, "math": MathReward, "code": CodeReward, "reasoning_gym": TaskScorer}
)


def accuracy_class(judge: str) -> type:
    """The class of the reward that serves as `judge`. `InvalidInput` for another name."""
    require_choice("task.judge", judge, JUDGES)
    return _CLASSES[judge]


def accuracy_by(judge: JudgeName, form: FormName = R1_ZERO_FORM) -> RewardFunction:
    """The accuracy reward that `judge` stands for, for completions of `form`. `InvalidInput` for another name."""
    require_choice("task.judge", judge, JUDGES)
    if judge == "code":
        return TaskAccuracy(CodeReward(form=form), AccuracyReward(form=form))
    if judge == "math":
        return MathReward(form=form)
    return AccuracyReward(form=form) if judge == EXACT else TaskScorer(form=form)
