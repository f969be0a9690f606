"""The first look at a configuration reads what targets declare, from their source text, and never imports them."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from r1_lightning.run.checks.declared import ANYTHING, check_declared, declared_by
from r1_lightning.run.config.compose import compose_stage, composing, options
from r1_lightning.types.errors import InvalidInput

ROLLOUT = "r1_lightning.rollout.groups.RolloutConfig"


def test_what_is_declared_is_what_the_class_takes() -> None:
    """Every target of every shipped stage: names as `inspect` finds them, and plain types as `typing` does."""
    with composing():
        nodes = [OmegaConf.to_container(compose_stage([f"stage={name}"]).config) for name in options("stage")]
    targets = sorted({target for node in nodes for target in _targets(node) if target.startswith("r1_lightning.")})
    read = 0
    for target in targets:
        declared, found = declared_by(target), get_object(target)
        if declared is None:
            continue
        assert list(declared) == list(inspect.signature(found).parameters), target
        plain_class = not dataclasses.is_dataclass(found)
        hints = typing.get_type_hints(found.__init__ if plain_class else found)
        for name, hint in declared.items():
            if hint in (int, float, str, bool):
                assert hints[name] is hint, (target, name)
                read += 1
    assert len(targets) > 15 and read > 40


def _targets(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if isinstance(node.get("_target_"), str) else []
        return own + [target for value in node.values() for target in _targets(value)]
    return [target for value in node for target in _targets(value)] if isinstance(node, list) else []


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ({"group_size": "four"}, "rollout.group_size='four' is not allowed: it must be a whole number"),
        ({"group_size": 4.5}, "rollout.group_size=4.5 is not allowed: it must be a whole number"),
        ({"group_size": True}, "rollout.group_size=True is not allowed: it must be a whole number"),
        ({"top_p": "all"}, "rollout.top_p='all' is not allowed: it must be a number"),
        ({"max_new_tokens": None}, "rollout.max_new_tokens=None is not allowed: it must be a whole number"),
        ({"group_siz": 4}, "rollout.group_siz=4 is not allowed: RolloutConfig takes "),
    ],
)
def test_a_wrong_name_or_type_is_one_line(node: dict[str, object], line: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_declared(OmegaConf.create({"rollout": {"_target_": ROLLOUT, **node}}))
    assert str(refused.value).startswith(line)


def test_what_the_text_does_not_say_is_left_alone() -> None:
    for target in (
        "torch.nn.Linear",
        "r1_lightning.nowhere.Nothing",
        "r1_lightning.rollout.groups.Nothing",
        "os.system",
    ):
        assert declared_by(target) is None
        check_declared(OmegaConf.create({"model": {"_target_": target, "anything": "goes"}}))


def test_choices_and_unions_are_read() -> None:
    declared = declared_by("r1_lightning.model.precision.PlainPrecision")
    assert (
        declared is not None and declared["compute"] == typing.Literal["fp32", "bf16"] and declared["compile"] is bool
    )
    assert (
        ANYTHING in (declared_by("r1_lightning.stages.grpo.GRPOModule") or {}).values()
    )  # a tensor's owner is no plain value


def test_an_evaluation_that_names_its_class_is_compared_with_that_class() -> None:
    """As a reward model's does; one that names none is an `EvaluationConfig`."""
    preferences = "r1_lightning.evaluation.preferences.PreferenceEvaluationConfig"
    check_declared(OmegaConf.create({"stage": {"evaluation": {"_target_": preferences, "items": 500}}}))
    with pytest.raises(InvalidInput, match=r"stage.evaluation.problems=4 is not allowed: PreferenceEvaluationConfig"):
        check_declared(OmegaConf.create({"stage": {"evaluation": {"_target_": preferences, "problems": 4}}}))
    check_declared(OmegaConf.create({"stage": {"evaluation": {"problems": 4}}}))
    with pytest.raises(InvalidInput, match=r"stage.evaluation.items=500 is not allowed: EvaluationConfig takes"):
        check_declared(OmegaConf.create({"stage": {"evaluation": {"items": 500}}}))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["stage=grpo", "modle=tiny"],
        ["model=tinny"],
        ["rollout.group_size=four"],
        ["rollout=fats"],
        ["seed"],
    ],
)
def test_help_and_typos_are_answered_without_torch(arguments: list[str], tmp_path: Path, repo_root: Path) -> None:
    program = (
        "import sys; from r1_lightning.run.cli import main; code = main();"
        "print('loaded', sorted({'torch', 'lightning', 'transformers'} & set(sys.modules))); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == (0 if arguments == ["--help"] else 2), result.stderr
    assert result.stdout.splitlines()[-1] == "loaded []"
