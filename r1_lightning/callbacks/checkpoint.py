"""The checkpoint from which the same command resumes, replaced atomically so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L

from r1_lightning.types.errors import InvalidInput, require_int

LAST = "last.ckpt"


class ResumeCheckpoint(L.Callback):
    """Saves the whole training state every `every_steps` optimizer steps to `folder`/last.ckpt."""

    def __init__(self, folder: Path, every_steps: int) -> None:
        require_int("callbacks.checkpoint.every_steps", every_steps, 1)
        self.folder = folder
        self.every_steps = every_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_steps == 0 and trainer.global_step < trainer.max_steps:
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
    """The checkpoint in `folder`, or None. A file that cannot be one (empty) is refused by name."""
    path = folder / LAST
    if not path.exists():
        return None
    if path.stat().st_size == 0:
        raise InvalidInput(
            f"checkpoint={str(path)!r} is not allowed: the file is empty; remove it to start this stage anew"
        )
    return path
