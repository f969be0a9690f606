"""Rules between the rewards and what they judge: what they refuse, in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.reward_rules import check_forms
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import REAL_CONFIGS, Command

REFUSED = [
    # another form than the template asks for
    (["task.template=r1"], "reward.rewards.accuracy.form='r1_zero' is not allowed: task.template=r1 asks for"),
    (
        ["reward=r1"],
        "reward.rewards.accuracy.form='r1' is not allowed: task.template=r1_zero asks for completions of the form",
    ),
    (
        ["reward=r1", "task.template=r1", "reward.rewards.format.form=r1_zero"],
        "reward.rewards.format.form='r1_zero' is not",
    ),
    (
        ["reward=r1", "task.template=r1", "reward.rewards.format.form=r2"],
        "reward.rewards.format.form='r2' is not allowed",
    ),
    (["task.template=r2"], "task.template='r2' is not allowed: it must be one of r1_zero, r1, plain"),
    # steps that an objective has no use for
    (
        ["objective=gspo", "+reward.steps={_target_: r1_lightning.rewards.steps.EquationSteps}"],
        "stage.objective._target_='r1_lightning.functional.sequence_policy_loss.GSPO' is not allowed: with reward.steps",
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_is_refused_before_anything_runs(command: Command, tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert expected in command(*arguments, configs=REAL_CONFIGS).error
    assert list(tmp_path.iterdir()) == []


FORMAT = "r1_lightning.rewards.format.FormatReward"


def test_every_reward_in_a_configuration_is_looked_at() -> None:
    inner = {"_target_": "r1_lightning.rewards.on_domain.OnDomain", "domains": ["a"], "reward": {"_target_": FORMAT}}
    for reward in ({"rewards": {"a": inner}}, {"rewards": [inner]}):
        check_forms({"task": {"template": "r1_zero"}, "reward": reward})
        with pytest.raises(InvalidInput, match=r"reward\.rewards\.(a|0)\.reward\.form='r1_zero' is not allowed"):
            check_forms({"task": {"template": "r1"}, "reward": reward})
    check_forms({"task": {"template": "r1"}, "reward": None})
    check_forms({"reward": {"_target_": FORMAT}})  # no template, no form to compare with
    other = {"_target_": "tests.support.miniature.HashReward"}
    check_forms({"task": {"template": "r1"}, "reward": other})
