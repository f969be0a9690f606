"""Resume checkpoints: the same command goes on from the last one. They are replaced atomically, so a kill leaves a complete one.

Lightning's own `save_checkpoint` writes to the system's temporary folder and moves the file from there. We write in the
checkpoint's own folder, so that the error of a full disk names that folder, and nothing is left behind elsewhere. The content
is Lightning's state all the same: `trainer.fit(ckpt_path=...)` reads it.

The state is taken right after an optimizer step, and written once Lightning has logged that step and the loggers have written
their rows to their files. So a kill can never lose the metrics of a step that the checkpoint has behind it.
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
    """Saves the training state to `folder`/last.ckpt every `every_steps` optimizer steps, and when training stops early.

    `saved_step` is the step from which a resumed run would go on; 0 if there is nothing to resume.
    """

    def __init__(self, folder: Path, every_steps: int) -> None:
        require_int("callbacks.checkpoint.every_steps", every_steps, 1)
        self.folder = folder
        self.every_steps = every_steps
        self.last_step = 0
        self.saved_step = self.taken_step = 0
        self.taken: io.BytesIO | None = None  # a serialised state that is not on disk yet

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_step = self.saved_step = trainer.global_step
        if trainer.is_global_zero:
            self._remove_leftovers()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, before = trainer.global_step, self.last_step
        self.last_step = step
        if step == before:  # between two micro-batches of a step: the checkpoint would miss the accumulated gradients
            return
        # After the last step the stage saves its weights, and `remove_leftovers` would delete the checkpoint.
        if (step % self.every_steps == 0 or trainer.should_stop) and step < trainer.max_steps:
            self.save(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.write(trainer)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.write(trainer)

    def on_exception(self, trainer: L.Trainer, *_: Any) -> None:
        self.write(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Serialise the training state to memory; `write` puts it on disk once the step has been logged.

        Memory first, because torch's file writer reports a full disk as "unexpected pos", and the system's own error names it.
        """
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # every process takes part
        self.taken = io.BytesIO()
        torch.save(state, self.taken)
        self.taken_step = trainer.global_step

    def write(self, trainer: L.Trainer) -> None:
        """Write the serialised state, if there is one, to a temporary file, then rename it over the old checkpoint.

        Raises `InvalidInput` naming the folder if it cannot be written. Only the main process writes, so strategies that
        shard the state over processes are not supported.
        """
        content, self.taken = self.taken, None
        if content is None:
            return
        for logger in trainer.loggers:
            logger.save()  # before the checkpoint: a kill in between must not lose the rows of steps that it has behind it
        if trainer.is_global_zero:
            with output_folder(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / LAST) as temporary:
                temporary.write_bytes(content.getbuffer())
        self.saved_step = self.taken_step
        trainer.strategy.barrier("ResumeCheckpoint.write")

    def _remove_leftovers(self) -> None:
        """Remove temporary files of a killed process; the folder is locked, so no other process is writing one."""
        for leftover in self.folder.glob(f".{LAST}.*tmp"):
            leftover.unlink(missing_ok=True)


def checkpoint_to_resume(folder: Path) -> Path | None:
    """Return the checkpoint in `folder`, or None. Raises `InvalidInput` naming an empty, truncated or damaged file."""
    path = folder / LAST
    if not path.exists():
        return None
    allowed = "the file is truncated or damaged; remove it to start this stage anew"
    require(is_whole(path), "checkpoint", str(path), allowed)
    return path


def is_whole(path: Path) -> bool:
    """True if the checkpoint at `path` is intact: a zip archive whose directory is readable and whose check sums are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except PermissionError:
        raise
    except Exception:  # zipfile raises many kinds of errors for a damaged directory
        return False
