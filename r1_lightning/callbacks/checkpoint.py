"""The checkpoint from which the same command resumes, replaced atomically so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import lightning as L

from r1_lightning.types.errors import require, require_int

LAST = "last.ckpt"


class ResumeCheckpoint(L.Callback):
    """Saves the whole training state every `every_steps` optimizer steps to `folder`/last.ckpt."""

    def __init__(self, folder: Path, every_steps: int) -> None:
        require_int("callbacks.checkpoint.every_steps", every_steps, 1)
        self.folder = folder
        self.every_steps = every_steps
        self.last_step = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, before = trainer.global_step, self.last_step
        self.last_step = step
        if step == before:  # in the middle of a step's micro-batches: their gradients would not be in the checkpoint
            return
        if step % self.every_steps == 0 and step < trainer.max_steps:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write beside the old checkpoint, then take its place in one step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{LAST}.tmp"
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, self.folder / LAST)


def checkpoint_to_resume(folder: Path) -> Path | None:
    """The checkpoint in `folder`, or None. Raises `InvalidInput` naming a file that is empty, truncated or damaged."""
    path = folder / LAST
    if not path.exists():
        return None
    allowed = "the file is truncated or damaged; remove it to start this stage anew"
    require(is_whole(path), "checkpoint", str(path), allowed)
    return path


def is_whole(path: Path) -> bool:
    """Whether the checkpoint at `path` is complete: a zip archive, its directory at its end, with a check sum per part."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except PermissionError:
        raise
    except Exception:  # whatever the library makes of a damaged directory
        return False
