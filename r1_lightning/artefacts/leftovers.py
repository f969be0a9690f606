"""Removes resume checkpoints once their stage is complete.

A checkpoint is several times the size of the weights (it also holds AdamW's two moments), and nobody reads it again.
"""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = "checkpoints"  # in an artefact's folder
LAST = "last.ckpt"  # in CHECKPOINTS
# Lightning writes these when a batch system (SLURM) signals a requeue.
OTHERS = "hpc_ckpt_*.ckpt"


def remove_leftovers(folder: Path) -> None:
    """Remove the checkpoints of the complete artefact in `folder`; files that we did not write stay."""
    checkpoints = folder / CHECKPOINTS
    for path in (checkpoints / LAST, *checkpoints.glob(f".{LAST}.*tmp"), *folder.glob(OTHERS)):
        path.unlink(missing_ok=True)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()
