"""The checkpoint from which the same command resumes, replaced atomically so that a kill at any moment leaves a whole one.

Lightning's own `save_checkpoint` writes to the system's temporary folder and moves the file from there. Here it is written
inside its own folder, so that a full disk is a line about that folder, and nothing is left behind elsewhere. What is written
is Lightning's state all the same: `trainer.fit(ckpt_path=...)` reads it.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch

from r1_lightning.artefacts.files import output_folder, replacing
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
        if trainer.is_global_zero:
            self._remove_leftovers()

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
        """Write beside the old checkpoint, then take its place in one step.

        Raises `InvalidInput` naming the folder where it cannot be written. The main process writes; a strategy that
        spreads the state over several processes is not served.
        """
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # every process takes part
        if trainer.is_global_zero:
            # By way of memory: torch's writer of files says "unexpected pos" of a full disk, the system says what it is.
            content = io.BytesIO()
            torch.save(state, content)
            with output_folder(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / LAST) as temporary:
                temporary.write_bytes(content.getbuffer())
        trainer.strategy.barrier("ResumeCheckpoint.save")

    def _remove_leftovers(self) -> None:
        """Remove what a kill in the middle of writing left; the folder is locked, so that nobody else writes here."""
        for leftover in self.folder.glob(f".{LAST}.*tmp"):
            leftover.unlink(missing_ok=True)


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
