"""Rules of fine-tuning and of forms: what they refuse, in one line, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.run.chat_rules import check_forms, check_length
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import REAL_CONFIGS, Command

ROW = json.dumps({"question": "1+1?", "completion": "<think>a</think>2"})
REFUSED = [
    # forms
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
    # how long
    (
        ["stage=sft", "data.epochs=null"],
        "stage.max_steps=None is not allowed: it must be a whole number, or set data.epochs",
    ),
    (["stage.max_steps=null"], "stage.max_steps=None is not allowed: it must be a whole number"),
    (["stage=sft", "stage.max_steps=0"], "stage.max_steps=0 is not allowed"),
    (["stage=sft", "data.epochs=two"], "data.epochs='two' is not allowed: it must be a whole number or null"),
    # where the examples come from
    (
        ["stage=sft"],
        "data.examples.file=None is not allowed: give a file (or data.examples.hub=OWNER/NAME), or an artefact",
    ),
    (["stage=sft", "data.examples.file=nowhere.jsonl"], "nowhere.jsonl is not readable: No such file or directory"),
    (
        ["stage=sft", "data.examples.file=good.jsonl", "+stage.inputs.data.folder=x"],
        "the stage has an input 'data' as well",
    ),
    (["stage=sft", "data.examples.file=bad.jsonl"], "bad.jsonl, line 2: the field 'completion' is missing"),
    (["stage=sft", "data.examples.hub=name"], "hub='name' is not allowed: it must be owner/name"),
    (
        ["stage=sft", "+data.data_folder=x"],
        "data.data_folder='x' is not allowed: it comes from stage.inputs.data; set it",
    ),
    # and the rest
    (
        ["stage=sft", "data.row_tokens=600"],
        "data.row_tokens=600 is not allowed: it must be at most model.max_positions=512",
    ),
    (
        ["stage=sft", "data=text"],
        "SFTModule trains on ChatBatch, which comes from r1_lightning.data.chat_data.ChatDataModule",
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_is_refused_before_anything_runs(command: Command, tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "good.jsonl").write_text(ROW + "\n")
    (tmp_path / "bad.jsonl").write_text(ROW + '\n{"question": "q"}\n')
    assert expected in command(*arguments, configs=REAL_CONFIGS).error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]


def test_an_input_comes_in_place_of_a_file(command: Command) -> None:
    """The folder itself is looked at next."""
    error = command("stage=sft", "+stage.inputs.data.folder=nowhere", configs=REAL_CONFIGS).error
    assert error.startswith("stage.inputs.data.folder: ") and "there is no such folder" in error


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


def test_a_stage_without_steps_of_its_own_is_left_alone() -> None:
    check_length({"stage": {"_target_": "x"}})
    check_length({"stage": {"max_steps": None}, "data": {"epochs": 1}})
    with pytest.raises(InvalidInput, match=r"stage\.max_steps=None"):
        check_length({"stage": {"max_steps": None}, "data": {"epochs": None}})
