"""The settings of an evaluation are those that the stage's configuration names, and fit the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r1_lightning.evaluation.preferences import PreferenceEvaluationConfig
from r1_lightning.evaluation.runner import EvaluationConfig
from r1_lightning.run import train as train_module
from r1_lightning.run.measuring import evaluation_settings, stage_evaluation
from r1_lightning.run.train import run_stage
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
    monkeypatch.setattr(train_module, "_fit", lambda *_: pytest.fail("it trained first"))
    evaluation = "stage.evaluation={problems: 2, max_new_tokens: 512}"
    small = [override for override in SMALL_MODEL if "self_check" not in override]
    refused = command("stage=pretrain", evaluation, *small, recorder=run_stage, configs=REAL_CONFIGS)
    assert refused.code == 2
    assert "error: stage.evaluation.max_new_tokens=512 is not allowed: the longest held-out prompt has" in refused.err
    assert list((tmp_path / "runs").iterdir()) == [], "a stage that never began leaves no folder"
