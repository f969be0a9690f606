"""Resume checkpoints: the same command goes on from the last one. They are replaced atomically, so a kill leaves a complete one.

Lightning's own `save_checkpoint` writes to the system's temporary folder and moves the file from there. We write in the
checkpoint's own folder, so that the error of a full disk names that folder, and nothing is left behind elsewhere. The content
is Lightning's state all the same: `trainer.fit(ckpt_path=...)` reads it.

The state is taken right after an optimizer step: streamed to a temporary file, one tensor at a time, so that memory holds no
second copy of it. The file takes the old checkpoint's place once Lightning has logged that step and the loggers have written their
rows to their files. So a kill can never lose the metrics of a step that the checkpoint has behind it.
"""

from __future__ import annotations

import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

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
        self.taken: ExitStack | None = None  # renames the temporary file, if there is one, when it is left

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
        """Write the training state to a temporary file; `write` puts it in the checkpoint's place once the step has been logged.

        Raises `InvalidInput` naming the folder if it cannot be written. Only the main process writes, so strategies that shard the
        state over processes are not supported.
        """
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # every process takes part
        with ExitStack() as stack:
            if trainer.is_global_zero:
                with output_folder(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                stream(state, stack.enter_context(replacing(self.folder / LAST)))
            self.taken = stack.pop_all()
        self.taken_step = trainer.global_step

    def write(self, trainer: L.Trainer) -> None:
        """Rename the temporary file, if there is one, over the old checkpoint."""
        taken, self.taken = self.taken, None
        if taken is None:
            return
        with taken:
            for logger in trainer.loggers:
                logger.save()  # before the rename: a kill in between must not lose the rows of steps that it has behind it
        self.saved_step = self.taken_step
        trainer.strategy.barrier("ResumeCheckpoint.write")

    def _remove_leftovers(self) -> None:
        """Remove temporary files of a killed process; the folder is locked, so no other process is writing one."""
        for leftover in self.folder.glob(f".{LAST}.*tmp"):
            leftover.unlink(missing_ok=True)


class _Sink:
    """A file for `torch.save` that keeps the system's error: torch reports a full disk as "unexpected pos"."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def stream(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path` in torch's format, one tensor at a time, without building the file in memory; the system's errors."""
    with path.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save(state, sink)  # type: ignore[arg-type]  # all that it calls are `write` and `flush`
        except RuntimeError as error:
            if sink.error is None:
                raise
            raise sink.error from error


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
