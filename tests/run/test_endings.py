"""Trainings that end otherwise than by their last step: stopped early, by SIGTERM, by a disk that fills up elsewhere."""

from __future__ import annotations

import csv
import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from r1_lightning.artefacts import store
from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.review.verdict import review
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.types.stopping import REPEATED_S, STOP
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
    assert "step 3 is saved, and the same command without that callback goes on from there" in refused.error
    assert not store.is_complete(folder(tmp_path, "pretrain"))
    assert not (folder(tmp_path, "pretrain") / store.WEIGHTS).exists()
    assert saved_step(tmp_path) == 3
    assert pretrain(tmp_path, capsys).code == 0  # the same artefact: it goes on without the callback


def test_a_training_that_diverged_says_so_in_its_own_files(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at the folder later reads what the last line said; mended, it goes on, and nothing of it is left."""
    original = PretrainModule.training_step
    with monkeypatch.context() as patch:
        patch.setattr(
            PretrainModule,
            "training_step",
            lambda stage, *batch: original(stage, *batch) * (float("nan") if stage.global_step == 3 else 1),
        )
        ended = pretrain(tmp_path, capsys)
    assert ended.code == 2 and "train/loss=nan at step 3: training has diverged" in ended.error
    made = folder(tmp_path, "pretrain")
    told = review(made).verdict
    assert told.sentence == "stopped at step 3 of 5; failed because of not finite from step 3: train/loss is NaN"
    assert (told.state, told.from_step) == ("failed", 3)
    assert pretrain(tmp_path, capsys).code == 0
    assert review(made).verdict.state == "healthy" and len(review(made).series["train/loss"]) == 5


def saved_step(root: Path) -> int:
    return torch.load(folder(root, "pretrain") / "checkpoints" / LAST, weights_only=True)["global_step"]


def signalled(patch: pytest.MonkeyPatch, number: int, step: int, times: int = 1) -> None:
    """Have `times` signals come in the middle of a step."""
    original = PretrainModule.training_step

    def training_step(stage: Any, *arguments: Any) -> Any:
        if stage.global_step == step:
            for _ in range(times):
                os.kill(os.getpid(), number)
                STOP.asked_s -= REPEATED_S  # the next one comes that much later
        return original(stage, *arguments)

    patch.setattr(PretrainModule, "training_step", training_step)


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGTERM, 75, 2), (signal.SIGINT, 130, 0), (signal.SIGINT, 130, 2), (signal.SIGUSR1, 75, 1)],
)
def test_a_signal_saves_its_step_and_says_so_last(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, number: int, code: int, step: int
) -> None:
    with monkeypatch.context() as patch:
        signalled(patch, number, step)
        ended = pretrain(tmp_path / "ended", capsys, "logger=tensorboard")
    assert ended.code == code
    assert ended.err.endswith(f"interrupted; the same command resumes, step {step + 1} is saved\n")
    assert not store.is_complete(folder(tmp_path / "ended", "pretrain")) and saved_step(tmp_path / "ended") == step + 1
    assert pretrain(tmp_path / "ended", capsys, "logger=tensorboard").code == 0
    assert pretrain(tmp_path / "whole", capsys).code == 0
    assert weights(tmp_path / "ended", "pretrain") == weights(tmp_path / "whole", "pretrain")
    assert shown_steps(tmp_path / "ended", "optim/lr") == [0, 1, 2, 3, 4]  # none twice


def shown_steps(root: Path, name: str) -> list[int]:
    events = EventAccumulator(str(folder(root, "pretrain") / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_a_second_signal_leaves_at_once_with_what_was_saved(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, last in ((3, "step 2 is saved"), (1, "from its start: no step is saved")):  # a checkpoint every two steps
        with monkeypatch.context() as patch:
            signalled(patch, signal.SIGINT, step, times=2)
            ended = pretrain(tmp_path / str(step), capsys)
        assert ended.code == 130 and ended.err.endswith(f"interrupted; the same command resumes, {last}\n")


def test_a_process_that_was_killed_between_checkpoints_shows_no_step_twice(tmp_path: Path, capsys: Captured) -> None:
    fault = "+callbacks.fault={_target_: tests.run.test_endings.Fail}"
    with pytest.raises(ZeroDivisionError):  # at step 4, when step 2 was the last to be saved
        pretrain(tmp_path, capsys, "logger=tensorboard", fault)
    assert saved_step(tmp_path) == 2
    assert pretrain(tmp_path, capsys, "logger=tensorboard").code == 0
    assert shown_steps(tmp_path, "train/loss") == [0, 1, 2, 3, 4]


class Fail(L.Callback):
    """A defect of somebody's own."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == 3:
            raise ZeroDivisionError


def test_time_that_is_over_saves_and_the_same_command_goes_on(tmp_path: Path, capsys: Captured) -> None:
    slow = "+callbacks.slow={_target_: tests.run.test_endings.Slow}"
    ended = pretrain(tmp_path, capsys, "trainer.max_time=00:00:01", slow)
    assert ended.code == 124
    assert "trainer.max_time=00:00:01 is over; the same command resumes, step " in ended.err
    assert 1 <= saved_step(tmp_path) <= 3  # a step takes four tenths of a second, and more on a busy machine
    assert ended.err.endswith(f"step {saved_step(tmp_path)} is saved\n")
    assert pretrain(tmp_path, capsys).code == 0
    for bad in ("10", "soon", "00:00:00"):
        refused = pretrain(tmp_path, capsys, f"trainer.max_time={bad}").error
        assert f"trainer.max_time={bad}" in refused.replace("'", "")


class Slow(L.Callback):
    """A step of four tenths of a second."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        time.sleep(0.4)


def test_a_finished_run_keeps_no_checkpoint_and_logs_its_learning_rate(tmp_path: Path, capsys: Captured) -> None:
    assert pretrain(tmp_path, capsys).code == 0
    artefact = folder(tmp_path, "pretrain")
    assert not list(artefact.rglob("*.ckpt")) and not (artefact / "checkpoints").exists()
    with (artefact / "tensorboard" / "metrics.csv").open(newline="") as file:
        rates = [float(row["optim/lr"]) for row in csv.DictReader(file)]
    # warm-up over 1 step to 3e-3, then a cosine to a twentieth of it over the steps that are left
    assert rates[0] == pytest.approx(3e-3, rel=1e-6) and rates == sorted(rates, reverse=True) and rates[-1] < 1e-3


@pytest.mark.parametrize("kind", ["ours", "Lightning's"])
def test_a_batch_system_gets_no_second_checkpoint(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Under Slurm, Lightning saves hpc_ckpt_1.ckpt at a signal and has the job queued again; here the step is saved, once."""
    for name, value in (("NTASKS", "1"), ("JOB_NAME", "train"), ("JOB_ID", "7"), ("PROCID", "0"), ("LOCALID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGUSR1, 2)
        assert pretrain(tmp_path, capsys).code == 75
    artefact = folder(tmp_path, "pretrain")
    assert not list(artefact.glob("hpc_ckpt*")) and saved_step(tmp_path) == 3
    if kind != "ours":  # one that was left by an earlier version of ours
        (artefact / "hpc_ckpt_1.ckpt").write_bytes((artefact / "checkpoints" / LAST).read_bytes())
    assert pretrain(tmp_path, capsys).code == 0 and not list(artefact.rglob("*.ckpt"))


def test_a_disk_that_fills_up_below_tmp_is_one_line(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ResumeCheckpoint, trainer: L.Trainer) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/elsewhere/xyz")

    monkeypatch.setattr(ResumeCheckpoint, "save", full)
    error = pretrain(tmp_path / "runs", capsys).error
    assert str(folder(tmp_path / "runs", "pretrain")) in error and "/tmp/elsewhere/xyz" in error and "TMPDIR=" in error
