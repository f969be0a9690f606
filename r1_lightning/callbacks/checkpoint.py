"""The checkpoint from which the same command resumes, replaced atomically so that a kill at any moment leaves a whole one.

Lightning's own `save_checkpoint` writes to the system's temporary folder and moves the file from there. Here it is written
inside its own folder, so that a full disk is a line about that folder, and nothing is left behind elsewhere. What is written
is Lightning's state all the same: `trainer.fit(ckpt_path=...)` reads it.

The state is taken right after an optimizer step, and written once Lightning has logged that step, after the loggers have put
their rows into their files: a checkpoint never stands for steps whose metrics a kill could still lose.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch

from r1_lightning.artefacts.files import output_folder, replacing
from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.types.errors import require, require_int


class ResumeCheckpoint(L.Callback):
    """Saves the whole state to `folder`/last.ckpt every `every_steps` optimizer steps, and where training is to stop early.

    `saved_step` is the step that a resumed run would go on from; 0 where there is nothing to resume.
    """

    def __init__(self, folder: Path, every_steps: int) -> None:
        require_int("callbacks.checkpoint.every_steps", every_steps, 1)
        self.folder = folder
        self.every_steps = every_steps
        self.last_step = 0
        self.saved_step = self.taken_step = 0
        self.taken: io.BytesIO | None = None  # a state that is not written yet

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_step = self.saved_step = trainer.global_step
        if trainer.is_global_zero:
            self._remove_leftovers()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, before = trainer.global_step, self.last_step
        self.last_step = step
        if step == before:  # in the middle of a step's micro-batches: their gradients would not be in the checkpoint
            return
        if (step % self.every_steps == 0 or trainer.should_stop) and step < trainer.max_steps:
            self.save(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.write(trainer)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.write(trainer)

    def on_exception(self, trainer: L.Trainer, *_: Any) -> None:
        self.write(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Take the state of this moment, to be written when the step has been logged.

        By way of memory: torch's writer of files says "unexpected pos" of a full disk, the system says what it is.
        """
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # every process takes part
        self.taken = io.BytesIO()
        torch.save(state, self.taken)
        self.taken_step = trainer.global_step

    def write(self, trainer: L.Trainer) -> None:
        """Write a state that was taken beside the old checkpoint, then take its place in one step.

        Raises `InvalidInput` naming the folder where it cannot be written. The main process writes; a strategy that
        spreads the state over several processes is not served.
        """
        content, self.taken = self.taken, None
        if content is None:
            return
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            with output_folder(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / LAST) as temporary:
                temporary.write_bytes(content.getbuffer())
        self.saved_step = self.taken_step
        trainer.strategy.barrier("ResumeCheckpoint.write")

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
