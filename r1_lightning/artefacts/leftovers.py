"""Names the resume checkpoints of a stage, and removes them when it is complete, with what a killed process left half written.

A checkpoint is several times the size of the weights (it also holds AdamW's two moments), and nobody reads it again.

    checkpoints/last.ckpt       the newest
    checkpoints/previous.ckpt   the one before it, from which a run goes on if the newest is found damaged
    checkpoints/damaged.ckpt    a newest one that was found damaged, set aside
    checkpoints/shards-STEP/    what each process held of a sharded stage at that step; a checkpoint cites it
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

CHECKPOINTS = "checkpoints"  # in an artefact's folder
LAST, PREVIOUS, DAMAGED = "last.ckpt", "previous.ckpt", "damaged.ckpt"  # in CHECKPOINTS
SHARDS = "shards-"  # in CHECKPOINTS, followed by a step: a folder of what each process held, cited by a checkpoint
TRAINED = "trained.json"  # in an artefact's folder: training has ended, evaluation has not
# Lightning writes these when a batch system (SLURM) signals a requeue.
OTHERS = "hpc_ckpt_*.ckpt"
REFERENCE = "reference"  # in an artefact's folder: weights that checkpoints cite
BEING_WRITTEN = re.compile(r"\..+\.\d+\.tmp")  # as `files.replacing` names them


def remove_killed_writes(folder: Path) -> None:
    """Remove unfinished files from the artefact in `folder`; its lock is held, so no process is writing one."""
    for place in (folder, folder / REFERENCE, folder / CHECKPOINTS):
        for path in place.glob(".*.tmp"):
            if BEING_WRITTEN.fullmatch(path.name):
                path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the checkpoints of the complete artefact in `folder`, with the weights that they cite; files of others stay."""
    remove_killed_writes(folder)
    checkpoints, reference = folder / CHECKPOINTS, folder / REFERENCE
    ours = [checkpoints / name for name in (LAST, PREVIOUS, DAMAGED)]
    ours += [folder / TRAINED, *folder.glob(OTHERS)]
    for path in (*ours, *reference.glob("step-*.safetensors")):
        path.unlink(missing_ok=True)
    for path in checkpoints.glob(f"{SHARDS}[0-9]*"):
        shutil.rmtree(path, ignore_errors=True)
    for place in (checkpoints, reference):
        with suppress(OSError):  # it is not there, or holds something else
            place.rmdir()
