"""Maps a task's judge (`task.judge`) to the accuracy reward that implements it.

    exact           numbers as fractions, other answers as normalised text (`rewards.accuracy`)
    math            also formulas, sets, units, boxes (`rewards.math_reward`); accepts every answer that `exact` accepts
    code            runs programs on their tests (`rewards.code_reward`); problems without tests as `exact`
    reasoning_gym   the scorer of the problem's own generator (`rewards.task_scorer`)

A published model answers AIME with `\\boxed{42}`, which the exact rule scores 0: a run with the wrong judge would silently learn
nothing. So a task names its judge, a reward lists the judges that it implements (`judges`), and `run.checks.rewards` compares
the two before anything is built. A user's own reward that lists none is trusted.
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

# The option of configs/reward per judge and completion format; None: set the judge's class as reward.rewards.accuracy.
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
    """Return the reward class that implements `judge`. `InvalidInput` for an unknown name."""
    require_choice("task.judge", judge, JUDGES)
    return _CLASSES[judge]


def accuracy_by(judge: JudgeName, form: FormName = R1_ZERO_FORM) -> RewardFunction:
    """Return the accuracy reward that implements `judge` for completions of `form`. `InvalidInput` for an unknown name."""
    require_choice("task.judge", judge, JUDGES)
    if judge == "code":
        return TaskAccuracy(CodeReward(form=form), AccuracyReward(form=form))
    if judge == "math":
        return MathReward(form=form)
    return AccuracyReward(form=form) if judge == EXACT else TaskScorer(form=form)
