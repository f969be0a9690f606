"""Trainings that end otherwise than by their last step: stopped early, by SIGTERM, by a disk that fills up elsewhere."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from r1_lightning.artefacts import store
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.stages.pretrain import PretrainModule
from tests.support.commands import SMALL_MODEL, Finished, folder, train, weights

Captured = pytest.CaptureFixture[str]


class StopEarly(L.Callback):
    """Ends training at its third step, as a person's early stopping might."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step >= 3


def pretrain(root: Path, capsys: Captured, *more: str) -> Finished:
    """Five steps of pre-training a very small model."""
    small = [override for override in SMALL_MODEL if "self_check" not in override]
    own = ["stage=pretrain", "stage.max_steps=5", "data.rows_per_batch=4", "optim.warmup_steps=1"]
    return train([*own, *small, f"paths.root={root}", *more], capsys)


def test_a_training_that_ends_early_is_not_complete(tmp_path: Path, capsys: Captured) -> None:
    stop = "+callbacks.stop={_target_: tests.run.test_endings.StopEarly}"
    refused = pretrain(tmp_path, capsys, stop)
    assert "stage.max_steps=5 is not allowed: training ended after 3 optimizer steps" in refused.error
    assert not store.is_complete(folder(tmp_path, "pretrain"))
    assert not (folder(tmp_path, "pretrain") / store.WEIGHTS).exists()
    assert pretrain(tmp_path, capsys).code == 0  # the same artefact: it goes on without the callback


def test_sigterm_says_how_to_go_on_and_is_no_success(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PretrainModule.training_step

    def training_step(stage: Any, *arguments: Any) -> Any:
        if stage.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(stage, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainModule, "training_step", training_step)
        ended = pretrain(tmp_path / "ended", capsys)
    assert ended.code == 143 and ended.err.endswith("interrupted; the same command resumes\n")
    assert not store.is_complete(folder(tmp_path / "ended", "pretrain"))
    assert pretrain(tmp_path / "ended", capsys).code == 0
    assert pretrain(tmp_path / "whole", capsys).code == 0
    assert weights(tmp_path / "ended", "pretrain") == weights(tmp_path / "whole", "pretrain")


def test_a_disk_that_fills_up_below_tmp_is_one_line(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ResumeCheckpoint, trainer: L.Trainer) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/elsewhere/xyz")

    monkeypatch.setattr(ResumeCheckpoint, "save", full)
    error = pretrain(tmp_path / "runs", capsys).error
    assert str(folder(tmp_path / "runs", "pretrain")) in error and "/tmp/elsewhere/xyz" in error and "TMPDIR=" in error
