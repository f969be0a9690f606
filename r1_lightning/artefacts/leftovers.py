"""What a stage needs only until it is complete: the state that an interrupted run resumes from.

It is several times the size of the weights (AdamW's two moments beside them), and nobody reads it again.
"""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = "checkpoints"  # in an artefact's folder
LAST = "last.ckpt"  # there
# Lightning's own, which a batch system's signal made it write beside ours.
OTHERS = "hpc_ckpt_*.ckpt"


def remove_leftovers(folder: Path) -> None:
    """Remove the checkpoints of the complete artefact in `folder`; what else lies among them (somebody's own) stays."""
    checkpoints = folder / CHECKPOINTS
    for path in (checkpoints / LAST, *checkpoints.glob(f".{LAST}.*tmp"), *folder.glob(OTHERS)):
        path.unlink(missing_ok=True)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()
