"""Measuring a finished artefact again, from its own configuration, weights and tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.artefacts import store
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.rewards.on_domain import OnDomain
from r1_lightning.run.build.parts import accuracy_of
from r1_lightning.run.commands import evaluate, evaluate_command
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import REAL_CONFIGS, Command
from tests.support.hf_folders import dense_folder

SMALL = ["model.d_model=32", "model.n_layers=2", "data.rows_per_batch=2", "task.tokenizer.training_documents=50"]


@pytest.fixture
def artefact(command: Command, tmp_path: Path) -> Path:
    """A base model after two steps."""
    outcome = command("stage=pretrain", "debug=fast", "logger=none", *SMALL, recorder=run_stage, configs=REAL_CONFIGS)
    assert outcome.code == 0, outcome.err
    return next((tmp_path / "runs").iterdir())


def test_evaluates_with_changed_settings_and_changes_nothing(
    artefact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = {path: path.read_bytes() for path in artefact.rglob("*") if path.is_file()}
    changes = {"problems": 3, "samples": 2, "max_new_tokens": 4}
    _, measures = evaluate.evaluate(artefact, changes)
    assert {"pass_at_1", "format_rate", "cons_at_2"} <= set(measures) and measures["completion_tokens_mean"].value <= 4
    assert evaluate.evaluate(artefact, changes)[1] == measures
    arguments = ["evaluate.py", str(artefact), "--problems", "3", "--samples", "2", "--max-new-tokens", "4"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--force-empty-think"])
    assert evaluate_command.main() == 0 and "3 held-out problems, 2 samples" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in artefact.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("option", ["math", "r1_zero", "r1_stage_2"])
def test_answers_are_judged_by_the_reward_that_is_named(option: str) -> None:
    accuracy = accuracy_of(evaluate.named_reward(option))
    assert isinstance(accuracy, {"math": MathReward, "r1_zero": AccuracyReward, "r1_stage_2": OnDomain}[option])


def test_the_evaluator_is_given_that_accuracy(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    made = evaluate.Evaluator

    def spy(*arguments: Any, **settings: Any) -> Any:
        asked.append(arguments[-1])
        return made(*arguments, **settings)

    monkeypatch.setattr(evaluate, "Evaluator", spy)
    evaluate.evaluate(artefact, {"problems": 1, "samples": 1, "max_new_tokens": 2})
    evaluate.evaluate(artefact, {"problems": 1, "samples": 1, "max_new_tokens": 2}, reward="math")
    assert [type(accuracy).__name__ for accuracy in asked] == ["NoneType", "MathReward"]  # pre-training has no reward


FEW = {"problems": 2, "samples": 1, "max_new_tokens": 3}


def test_a_published_checkpoint_is_measured_on_a_task_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = dense_folder(tmp_path / "qwen", "qwen2")
    monkeypatch.chdir(tmp_path)  # the samples go to evaluations/ below paths.root
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    table, measures = evaluate.evaluate(folder, FEW, task=["task=equations"])
    assert "2 held-out problems, 1 samples each" in table and measures["completion_tokens_mean"].value <= 3
    named = ["--task", "equations", "--problems", "2", "--samples", "1", "--max-new-tokens", "3", "--reward", "math"]
    for arguments in (named, ["--problems", "2", "task=equations", *named[4:]]):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", str(folder), *arguments])
        assert evaluate_command.main() == 0 and "2 held-out problems" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ([], r"task=None is not allowed: .* is a published checkpoint, which has no task of its own: task=NAME"),
        (["task=nonesuch"], r"nonesuch"),
        (
            ["model=tiny", "task=equations"],
            r"the argument=\['model=tiny'\] is not allowed: beside the folder there may be",
        ),
        (["taskmaster=1"], r"the argument=\['taskmaster=1'\] is not allowed"),
        (["task.template=r1"], r"which has no task of its own"),
        (["~task.source.weights"], r"which has no task of its own"),
        (["~trainer.devices"], r"the argument=\['~trainer.devices'\] is not allowed"),
    ],
)
def test_a_checkpoint_without_a_task_is_one_line(tmp_path: Path, task: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        evaluate.opened_for_measuring(dense_folder(tmp_path / "qwen", "qwen2"), task)
    assert "\n" not in str(error.value)


def test_an_artefact_is_measured_on_another_task_in_its_own_template(artefact: Path) -> None:
    _, config = evaluate.opened_for_measuring(artefact, ["task=equations", "task.source.max_level=2"])
    own = evaluate.opened_for_measuring(artefact, [])[1]
    assert own.task.source["_target_"].endswith("ArithmeticTask") and config.model == own.model
    assert config.task.source["_target_"].endswith("EquationsTask") and config.task.template == own.task.template
    _, config = evaluate.opened_for_measuring(artefact, ["task=equations", "task.template=r1"])
    assert config.task.template == "r1"
    assert "pass_at_1" in evaluate.evaluate(artefact, FEW, task=["task=equations"])[1]


def test_bad_input_is_one_line(artefact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InvalidInput, match=r"stage\.evaluation\.problems=0"):
        evaluate.evaluate(artefact, {"problems": 0})
    with pytest.raises(InvalidInput, match=r"reward='guess' is not allowed: it must be one of code, math, .*r1_zero"):
        evaluate.evaluate(artefact, {}, reward="guess")
    (artefact / store.MARKER).unlink()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(artefact)])
    assert evaluate_command.main() == 2
    assert capsys.readouterr().err.startswith("error: artefact=")
