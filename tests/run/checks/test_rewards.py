"""Rules between the rewards and what they judge: what they refuse, in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from r1_lightning.rewards.judges import JUDGES, OPTIONS, accuracy_class
from r1_lightning.run.checks.rewards import check_forms, check_judges
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
    # a value model and the estimator that asks it
    (
        ["stage=ppo", "rollout.advantages=null"],
        "rollout.advantages=None is not allowed: stage=ppo trains a value model",
    ),
    (
        [
            "stage=grpo",
            "rollout.advantage_scale=none",
            "+rollout.advantages._target_=r1_lightning.rollout.value_baseline.ValueBaseline",
        ],
        "ValueBaseline' is not allowed: it asks a value model, and only stage=ppo has one",
    ),
    # a comparison reads no reward
    (
        ["stage=compare", "reward=math"],
        "reward='r1_lightning.rewards.combine.WeightedSum' is not allowed: Comparison reads",
    ),
    (["stage=compare", "reward=r1_zero"], "Comparison reads stage.accuracy and no reward; leave it out"),
    # a judge that is not the task's
    (
        ["task=aime24"],
        "reward='exact' is not allowed: the answers of this task are judged by math (task.judge); use reward=math",
    ),
    (["task=math500"], "are judged by math (task.judge); use reward=math"),
    (["task=gsm8k_hub"], "are judged by math (task.judge); use reward=math"),
    (
        ["task=mbpp", "reward=math"],
        "reward='exact and math' is not allowed: the answers of this task are judged by code",
    ),
    (["task=programs"], "judged by code (task.judge); use reward=code"),
    (["task=programs", "reward=r1", "task.template=r1"], "judged by code (task.judge); use reward=r1_code"),
    (["task=cmath", "reward=r1", "task.template=r1"], "judged by math (task.judge); use reward=r1_math"),
    (["task=reasoning_gym"], "judged by reasoning_gym (task.judge); use reward=reasoning_gym"),
    (
        ["task=reasoning_gym", "reward=r1", "task.template=r1"],
        "set reward.rewards.accuracy._target_=r1_lightning.rewards.task_scorer.TaskScorer",
    ),
    (["reward=reasoning_gym"], "are judged by exact (task.judge); use reward=r1_zero"),
    (
        ["stage=compare", "task=aime24"],
        "set stage.accuracy.r1_zero.other._target_=r1_lightning.rewards.math_reward.MathReward",
    ),
    (["task.judge=taste"], "task.judge='taste' is not allowed: it must be one of exact, math, code, reasoning_gym"),
    # steps that an objective has no use for
    (
        ["objective=gspo", "+reward.steps={_target_: r1_lightning.rewards.steps.EquationSteps}"],
        "stage.objective._target_='r1_lightning.functional.sequence_policy_loss.GSPO' is not allowed: with reward.steps",
    ),
    (
        ["objective=rloo", "+reward.steps={_target_: r1_lightning.rewards.steps.EquationSteps}"],
        "LeaveOneOut'} is not allowed: with reward.steps (process supervision) leave it out",
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


def test_a_judge_is_looked_for_wherever_a_reward_holds_another() -> None:
    exact = {"_target_": "r1_lightning.rewards.accuracy.AccuracyReward"}
    inner = {"_target_": "r1_lightning.rewards.on_domain.OnDomain", "domains": ["a"], "reward": exact}
    for reward in ({"rewards": {"a": inner}}, {"rewards": [inner]}, {"rewards": {"accuracy": exact}}):
        check_judges({"task": {"template": "r1_zero", "judge": "exact"}, "reward": reward})
        check_judges({"task": {"template": "r1_zero"}, "reward": reward})  # a task of before, without a judge
        with pytest.raises(InvalidInput, match=r"reward='exact' is not allowed: .* use reward=math"):
            check_judges({"task": {"template": "r1_zero", "judge": "math"}, "reward": reward})
    other = {"rewards": {"a": {"_target_": "tests.support.miniature.HashReward"}}}
    check_judges({"task": {"template": "r1_zero", "judge": "math"}, "reward": other})  # somebody's own is trusted


def test_every_task_names_its_judge_and_every_option_that_is_named_is_that_judge() -> None:
    for path in sorted(REAL_CONFIGS.glob("task/*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert content.get("judge") in JUDGES or "defaults" in content, path.name
    for form, options in OPTIONS.items():
        for judge, option in options.items():
            text = (REAL_CONFIGS / "reward" / f"{option}.yaml").read_text(encoding="utf-8")
            reads = "math" if option == "r1_opened" else judge  # what is right exactly is right for it, too
            assert accuracy_class(reads).__name__ in text, option
            assert (form == "r1_zero") != (f"form: {form}" in text), option
