"""Measuring a finished artefact again, from its own configuration, weights and tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from r1_lightning.run import evaluate
from r1_lightning.run.train import run_stage
from r1_lightning.types.errors import InvalidInput
from tests.run.conftest import REAL_CONFIGS, Command

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
    assert evaluate.main() == 0 and "3 held-out problems, 2 samples" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in artefact.rglob("*") if path.is_file()} == before


def test_bad_input_is_one_line(artefact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InvalidInput, match=r"stage\.evaluation\.problems=0"):
        evaluate.evaluate(artefact, {"problems": 0})
    (artefact / store.MARKER).unlink()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(artefact)])
    assert evaluate.main() == 2
    assert capsys.readouterr().err.startswith("error: artefact=")
