"""Resume checkpoints: the same command goes on from the last one, to the same bits, whatever ended the process.

Lightning's own `save_checkpoint` writes to the system's temporary folder and moves the file from there. We write in the
checkpoint's own folder, so that the error of a full disk names that folder, and nothing is left behind elsewhere. The content
is Lightning's state all the same (weights, optimizer, schedule, counters, data position, rollout in flight; the reference policy by
citation), with the global random generators and the fingerprint of the configuration. `trainer.fit(ckpt_path=...)` reads it.

The state is taken right after an optimizer step: streamed to a temporary file, one tensor at a time, so that memory holds no
second copy of it. The file takes the old checkpoint's place once Lightning has logged that step and the loggers have written their
rows to their files. So a kill can never lose the metrics of a step that the checkpoint has behind it.

The file is synced to disk, then the old checkpoint becomes previous.ckpt, then the new one last.ckpt. It holds its own check sum
(`artefacts/checkpoint_file.py`). A last.ckpt that is found damaged costs the steps since previous.ckpt.

Asynchronous saving (`trainer.checkpoint_async`): the state is copied in memory (`artefacts/host_copy.py`), and once its step is
logged, a thread writes, syncs and renames it while training goes on. At most one write is under way: the next saving waits for
it, and so do the end of training and a stop on request. If it fails, training ends before its next step, by the same
error. Several processes write together and know of each other: the threads have a group of their own, whose calls cannot meet
those of training, and a checkpoint takes its place when all have written.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import distributed

from r1_lightning.artefacts.checkpoint_file import CITED_SHARDS, MADE_FOR, is_whole, stream
from r1_lightning.artefacts.files import DISK_FULL, output_folder, replacing
from r1_lightning.artefacts.host_copy import HostCopy
from r1_lightning.artefacts.leftovers import DAMAGED, LAST, PREVIOUS
from r1_lightning.artefacts.shard_files import ASIDE, Aside
from r1_lightning.artefacts.store import digits_of
from r1_lightning.types.errors import InvalidInput, Stopped, require_int
from r1_lightning.types.processes import ONE, Processes, ProcessGroup, processes_now
from r1_lightning.types.stopping import REQUEUE, STOP

GENERATORS = "generators"  # key of the global random generators' states in a checkpoint
FAULT_WAIT_S = 10.0  # for a write under way when something else fails: it may wait for a process that is gone


class ResumeCheckpoint(L.Callback):
    """Saves the training state to `folder`/last.ckpt every `every_steps` optimizer steps, and when training stops early.

    `saved_step` is the step from which a resumed run would go on; 0 if there is nothing to resume.
    """

    def __init__(self, folder: Path, every_steps: int, is_async: bool = False) -> None:
        require_int("callbacks.checkpoint.every_steps", every_steps, 1)
        self.folder = folder
        self.every_steps = every_steps
        self.last_step = 0
        self.saved_step = self.taken_step = 0
        self.taken: ExitStack | None = None  # renames the temporary file, if there is one, when it is left
        self.generators: Mapping[str, Any] | None = None  # of the checkpoint that was loaded
        self.copy = HostCopy() if is_async else None
        self.copied: tuple[dict[str, Any], Aside | None] | None = None  # a state to be written once its step is logged
        self.under_way: Future[None] | None = None
        self.writing_step = 0
        self.is_copying = False  # True while a state is taken that a thread will write
        self.processes = self.writers = ONE

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last_step = self.saved_step = trainer.global_step
        if trainer.is_global_zero:
            with output_folder(self.folder):
                self.folder.parent.mkdir(parents=True, exist_ok=True)  # a loop of a user's own may not have made it yet
            self._remove_leftovers()
            _set_damaged_aside(self.folder, trainer.ckpt_path)
        if self.copy is not None:
            self.processes, self.writers = processes_now(), _own_group(trainer)
        # Last of all, just before the first batch is asked for: getting here may have drawn numbers.
        generators, self.generators = self.generators, None
        if generators is not None:
            set_generator_states(generators, module.device)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[GENERATORS] = generator_states(module.device)
        checkpoint[MADE_FOR] = digits_of(self.folder.parent)
        if self.is_copying:
            checkpoint[ASIDE] = None  # what a stage shares out is written later, with the rest

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.generators = checkpoint.get(GENERATORS)

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
        # All processes look whether all are done, so that a failed write ends all of them before the same step.
        if self.under_way is not None and self.processes.all(self.under_way.done()):
            self.finish()

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.write(trainer)
        self.finish()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        # All processes stop together, but a fault or a second signal may be this one's alone: the others then wait in another
        # call, and waiting for them here would hide the fault until the group's time limit.
        waits = isinstance(exception, Stopped) and not STOP.twice
        self.write(trainer, waits)
        if waits:
            self.finish()
        elif self.under_way is not None and not STOP.twice:
            wait([self.under_way], FAULT_WAIT_S)  # without its own error, if it has one: the fault came first

    def save(self, trainer: L.Trainer) -> None:
        """Write the training state to a temporary file, or copy it; `write` does the rest once the step has been logged.

        Raises `InvalidInput` naming the folder if it cannot be written. Only the main process writes this file; a stage whose
        weights are divided over processes has put them beside it by then, and cites them (`stages/sharded_state.py`).
        """
        self.finish()
        self.is_copying = self.copy is not None
        try:
            state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # every process takes part
        finally:
            self.is_copying = False
        if self.copy is not None:
            self.copied = _copied(state, self.copy, trainer.is_global_zero)
        else:
            self.taken = self._streamed(state, trainer.is_global_zero)
        self.taken_step = trainer.global_step

    def write(self, trainer: L.Trainer, waits: bool = True) -> None:
        """Put what `save` took, if it took anything, in the checkpoint's place, or have a thread do so.

        Without a thread, all processes return after that if each `waits`.
        """
        (taken, self.taken), (copied, self.copied) = (self.taken, None), (self.copied, None)
        if taken is None and copied is None:
            return
        with taken or ExitStack():
            for logger in trainer.loggers:
                logger.save()  # before the rename: a kill in between must not lose the rows of steps that it has behind it
        if copied is not None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            self.writing_step, self.under_way = self.taken_step, thread.submit(self._written, *copied)
            thread.shutdown(wait=False)  # it ends with this write
            return
        self.saved_step = self.taken_step
        if waits:
            trainer.strategy.barrier("ResumeCheckpoint.write")

    def finish(self) -> None:
        """Wait for the write that is under way, if there is one; raises what it raised, in every process."""
        under_way, self.under_way = self.under_way, None
        if under_way is not None:
            under_way.result()
            self.saved_step = self.writing_step

    def _written(self, state: dict[str, Any], aside: Aside | None) -> None:
        """In the thread: write `state` and what is beside it. If a process cannot, all of them raise its error."""
        fault: Exception | None = None
        try:
            if aside is not None:
                state[CITED_SHARDS] = aside.written(self.writers)
            self._streamed(state, self.writers.is_main).close()
        except Exception as error:
            fault = error
        said = self.writers.gather([] if fault is None else [" ".join(str(fault).split())])
        if fault is not None:
            raise fault
        if said:
            raise InvalidInput(said[0])

    def _streamed(self, state: dict[str, Any], is_main: bool) -> ExitStack:
        """Write `state` to a temporary file, in the main process alone; leaving the stack renames it."""
        with ExitStack() as stack:
            if is_main:
                with output_folder(self.folder):
                    # Not its parents: where a disk was unmounted, the checkpoint would go to the disk below.
                    self.folder.mkdir(exist_ok=True)
                last, previous = self.folder / LAST, self.folder / PREVIOUS
                self._stream(state, stack.enter_context(replacing(last, former=previous)))
            return stack.pop_all()

    def _stream(self, state: dict[str, Any], path: Path) -> None:
        """Write `state` to `path`; a full disk gets the room of the previous checkpoint, if the last one is whole."""
        last, previous = self.folder / LAST, self.folder / PREVIOUS
        polls: dict[str, Any] = {} if self.copy is None else {"poll": _leave}
        try:
            stream(state, path, **polls)
        except OSError as error:
            if error.errno not in DISK_FULL or not previous.is_file() or not is_whole(last):
                raise
            previous.unlink()
            print(f"checkpoint: the disk is full; {previous} makes room for the next one", flush=True)
            stream(state, path, **polls)

    def _remove_leftovers(self) -> None:
        """Remove temporary files of a killed process; the folder is locked, so no other process is writing one."""
        for leftover in self.folder.glob(f".{LAST}.*tmp"):
            leftover.unlink(missing_ok=True)


def _copied(state: dict[str, Any], copy: HostCopy, is_main: bool) -> tuple[dict[str, Any], Aside | None]:
    """Return copies of what this process writes of a training state: the state, if it is the main one, and its shards."""
    aside: Aside | None = state.pop(ASIDE, None)
    values: dict[str, Any] = {} if aside is None else aside.values
    own, values = copy((state if is_main else {}, values))
    return own, None if aside is None else aside.copied(values)


def _own_group(trainer: L.Trainer) -> Processes:
    """Return the processes of the run by a group of its own, for calls beside those of training; all make it together."""
    if trainer.world_size == 1:
        return ONE
    limit = getattr(trainer.strategy, "_timeout", None)
    return ProcessGroup.of_group(distributed.new_group(backend="gloo", timeout=limit))


def _leave() -> None:
    """End a thread's writing after a second signal, for which the handler ends the work of the main thread alone."""
    if STOP.twice:
        raise Stopped("interrupted", REQUEUE)


def _set_damaged_aside(folder: Path, resumed: Any) -> None:
    """Give last.ckpt another name if the run goes on from previous.ckpt, which it would replace at the next saving."""
    last = folder / LAST
    if resumed is not None and Path(resumed) == folder / PREVIOUS and last.exists():
        os.replace(last, folder / DAMAGED)


def generator_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the global generators of Python, numpy and torch, as numbers and tensors.

    Our own draws are keyed and need none of them; dropout of adapters and a user's own code do.
    """
    version, words, normal = random.getstate()
    name, keys, *places = np.random.get_state(legacy=True)
    states = {
        "python": [version, list(words), normal],
        "numpy": [name, np.asarray(keys).tolist(), *places],
        "torch": torch.get_rng_state(),
    }
    return states if device.type != "cuda" else {**states, "cuda": torch.cuda.get_rng_state(device)}


def set_generator_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Set the global generators to `states`, as `generator_states` gave them; a GPU's only where they were taken on one."""
    version, words, normal = states["python"]
    random.setstate((version, tuple(words), normal))
    name, keys, *places = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *places))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
