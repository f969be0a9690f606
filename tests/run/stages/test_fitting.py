"""Callbacks and loggers of one's own: they run, or one line says why not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import Callback

from r1_lightning.artefacts.leftovers import CHECKPOINTS, LAST
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from r1_lightning.run.stages.fitting import fit, make_trainer
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.types.errors import InvalidInput
from tests.run.test_endings import Captured, pretrain
from tests.support.commands import folder
from tests.support.miniature import Miniature, Spy, backbone, trainer


class NoCallback:
    """Something else."""

    def __init__(self, days: int) -> None:
        self.days = days


OWN = "+callbacks.mine={_target_: lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "+callbacks.mine={_target_: tests.run.stages.test_fitting.NoCallback, days: 1}",
            "it must be a lightning.Callback",
        ),
        (f"{OWN}.EarlyStopping, monitor: nothing, check_on_train_epoch_end: true}}", "this stage has no such metric"),
        (f"{OWN}.ModelCheckpoint, save_top_k: -5}}", "Lightning refuses one of them"),
        ("+logger.wandb=true", "logger.wandb=True is not allowed: a logger is a mapping with a _target_"),
        ("+trainer.max_epochs=3", "trainer.max_epochs=3 is not allowed: trainer takes"),
    ],
)
def test_callbacks_and_loggers_that_do_not_fit_are_one_line(
    tmp_path: Path, capsys: Captured, override: str, words: str
) -> None:
    assert words in pretrain(tmp_path, capsys, override).error


def test_callbacks_of_ones_own_run(tmp_path: Path, capsys: Captured) -> None:
    target = "lightning.pytorch.callbacks"
    own = f"+callbacks.keep={{_target_: {target}.ModelCheckpoint, monitor: train/loss, every_n_train_steps: 2, save_top_k: 1}}"
    assert pretrain(tmp_path, capsys, own, f"+callbacks.lr={{_target_: {target}.LearningRateMonitor}}").code == 0
    assert len(list(folder(tmp_path, "pretrain").rglob("*.ckpt"))) == 1  # the person's, not ours


def test_a_logger_whose_package_is_missing_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1_lightning.run.checks.loggers.find_spec", lambda _: None)
    for name in ("wandb", "mlflow"):
        assert f"pip install 'r1_lightning[{name}]'" in pretrain(tmp_path / "runs", capsys, f"logger={name}").error
    assert not (tmp_path / "runs").exists()


def test_loggers_do_not_count(tmp_path: Path, capsys: Captured) -> None:
    assert pretrain(tmp_path, capsys, "logger=csv").code == 0
    files = {path.name for path in folder(tmp_path, "pretrain").glob("tensorboard/*")}
    assert files == {"metrics.csv"}
    own = "+logger.mine={_target_: lightning.pytorch.loggers.CSVLogger, name: mine}"
    again = pretrain(tmp_path, capsys, "logger=tensorboard", own)
    assert again.code == 0 and "reusing" in again.out


def test_a_complete_stage_keeps_neither_moments_nor_gradients(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=2)
    own = [Interruption(None), ResumeCheckpoint(tmp_path / CHECKPOINTS, 1)]
    lightning = trainer(2, tmp_path, own)
    fit(lightning, miniature.pretrain(), miniature.text(), tmp_path)
    assert lightning.optimizers and not any(optimizer.state for optimizer in lightning.optimizers)
    assert all(parameter.grad is None for parameter in miniature.model.parameters())


@pytest.mark.parametrize(
    "other", [{"model": backbone(n_layers=3)}, {"optim": MuonConfig(lr=0.01)}], ids=["model", "optim"]
)
def test_a_checkpoint_of_another_form_is_one_line(tmp_path: Path, other: dict[str, Any]) -> None:
    """It has no fingerprint here; with one it is refused before it is loaded."""

    def run(miniature: Miniature, *more: Callback) -> None:
        own = [*more, Interruption(None), ResumeCheckpoint(tmp_path / CHECKPOINTS, 1)]
        fit(trainer(3, tmp_path, own), miniature.pretrain(), miniature.text(), tmp_path)

    with pytest.raises(InvalidInput, match="training ended after 1 optimizer steps"):
        run(Miniature(max_steps=3), Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", True)))
    with pytest.raises(InvalidInput) as refused:
        run(Miniature(max_steps=3, **other))
    line, path = str(refused.value), str(tmp_path / CHECKPOINTS / LAST)
    assert line.startswith(f"checkpoint={path!r} is not allowed: it is of another model (") and "\n" not in line
    assert line.endswith("; remove it to start this stage anew")


def test_the_configuration_decides_whether_a_thread_writes(tmp_path: Path) -> None:
    for asked in (False, True):
        with composing():
            own = ["trainer=cpu", f"trainer.checkpoint_async={str(asked).lower()}", "logger=none"]
            config = resolved(compose_stage(["stage=pretrain", *own]).config)
        config.callbacks = None
        made = make_trainer(config, {}, tmp_path, 1).callbacks
        saver = next(callback for callback in made if isinstance(callback, ResumeCheckpoint))
        assert (saver.copy is not None) is asked


def test_half_a_file_of_a_killed_process_goes_before_training(tmp_path: Path) -> None:
    left = [tmp_path / ".best.safetensors.7.tmp", tmp_path / "reference" / ".step-4.safetensors.7.tmp"]
    (tmp_path / "reference").mkdir()
    for path in left:
        path.write_bytes(b"half")
    miniature = Miniature(max_steps=1)
    callbacks = [ResumeCheckpoint(tmp_path / CHECKPOINTS, 1), Interruption(None)]
    fit(trainer(1, tmp_path, callbacks), miniature.pretrain(), miniature.text(), tmp_path)
    assert not any(path.exists() for path in left)


def test_a_resumed_stage_reads_its_checkpoint_mapped_and_keeps_none_of_it(tmp_path: Path) -> None:
    """Else the file's room on the disk would not come back when the next checkpoint replaces it."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    held: dict[str, list[bool]] = {"before": [], "while": []}

    def stop(fit: L.Trainer, *_: object) -> None:
        fit.should_stop = not held["before"]

    def look(at: str) -> Callable[..., None]:
        return lambda *_: held[at].append(str(tmp_path / CHECKPOINTS) in Path("/proc/self/maps").read_text())

    def run(*callbacks: L.Callback) -> None:
        miniature = Miniature(max_steps=3)
        own = [*callbacks, Interruption(None), ResumeCheckpoint(tmp_path / CHECKPOINTS, 1)]
        fit(trainer(3, tmp_path, own), miniature.pretrain(), miniature.text(), tmp_path)

    with pytest.raises(InvalidInput, match="a callback stopped it"):
        run(Spy("on_train_batch_end", stop))
    run(Spy("on_load_checkpoint", look("before")), Spy("on_train_batch_start", look("while")))
    assert held == {"before": [True], "while": [False, False]}
