"""The settings of an evaluation are those that the stage's configuration names, and fit the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from r1_lightning.evaluation.preferences import PreferenceEvaluationConfig
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.run.checks.evaluation import evaluation_settings, held_out_problems, stage_evaluation, with_room
from r1_lightning.run.stages import train as train_module
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem
from tests.run.conftest import REAL_CONFIGS, Command
from tests.support.commands import SMALL_MODEL

PREFERENCES = {"_target_": "r1_lightning.evaluation.preferences.PreferenceEvaluationConfig", "items": 7}


def test_an_evaluation_of_preferences_has_no_settings_of_problems() -> None:
    def config(evaluation: object) -> object:
        return OmegaConf.create({"stage": {"evaluation": evaluation}})

    named = {"_target_": "r1_lightning.evaluation.runner.EvaluationConfig", "problems": 3}
    assert evaluation_settings(config(named)) == evaluation_settings(config({"problems": 3})) == EvaluationConfig(3)
    assert stage_evaluation(config(PREFERENCES)) == PreferenceEvaluationConfig(items=7)
    assert evaluation_settings(config(PREFERENCES)) is None
    assert stage_evaluation(config(None)) is evaluation_settings(OmegaConf.create({"stage": {}})) is None


def test_an_evaluation_too_long_for_the_model_is_refused_before_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "trained", lambda *_: pytest.fail("it trained first"))
    evaluation = "stage.evaluation={problems: 2, max_new_tokens: 512}"
    small = [override for override in SMALL_MODEL if "self_check" not in override]
    refused = command("stage=pretrain", evaluation, *small, recorder=run_stage, configs=REAL_CONFIGS)
    assert refused.code == 2
    assert "error: stage.evaluation.max_new_tokens=512 is not allowed: the longest held-out prompt has" in refused.err
    left = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert left == [], "a stage that never began leaves no folder"


class Tokens:
    """A token for each letter."""

    begins_with_bos = False

    def encode(self, text: str) -> list[int]:
        return list(range(len(text)))

    def encode_prompts(self, template: Any, questions: Sequence[str], after: str = "") -> list[list[int]]:
        return [self.encode(question + after) for question in questions]


class Source:
    """Sixty short problems, the fourth of which has nine letters."""

    notes = ("no test rows: 6 of 60 training problems are held out",)

    def held_out_problems(self, count: int) -> list[Problem]:
        return [Problem("a" * (9 if number == 3 else 2), "", f"p{number}") for number in range(60)][:count]

    def place_of(self, problem: Problem) -> str:
        return f"x.jsonl, line {int(problem.problem_id[1:]) + 1}"


def test_as_many_are_measured_as_there_are_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(held_out_problems(Source(), EvaluationConfig(500))) == 60
    said = f"{Source.notes[0]}\nheld-out problems: 60, all that there are (stage.evaluation.problems=500)\n"
    assert capsys.readouterr().out == said
    assert len(held_out_problems(Source(), EvaluationConfig(60))) == 60 and "all that" not in capsys.readouterr().out


def test_a_held_out_prompt_without_room_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve positions, four of them for an answer: eight are left for a prompt, and one for each letter."""
    tokenizer: Any = Tokens()
    evaluator = Evaluator(Source().held_out_problems(60), tokenizer, PLAIN, EvaluationConfig(max_new_tokens=4), 0)
    kept = with_room(evaluator, 12, Source())
    assert [problem.problem_id for problem in kept.problems] == [f"p{number}" for number in range(60) if number != 3]
    assert capsys.readouterr().out == (
        "held-out prompts: 1 problem leaves no room for 4 tokens of an answer (model.max_positions=12) and is left out; "
        "the first: x.jsonl, line 4, 9 tokens\n"
    )
    assert with_room(evaluator, 13, Source()) is evaluator and capsys.readouterr().out == ""
    prefixed = replace(evaluator, forced_prefix="bb")
    assert len(with_room(prefixed, 14, Source()).problems) == 59 and with_room(prefixed, 15, Source()) is prefixed
    with pytest.raises(InvalidInput, match="the longest held-out prompt has 9 tokens"):
        with_room(evaluator, 5, Source())
