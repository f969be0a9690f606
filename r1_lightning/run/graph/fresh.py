"""Which artefact `fresh=true` began in a batch job: the first attempt of the job makes it anew, all later ones resume it.

A job that is queued again runs the same words. To read `fresh=true` as "anew" each time would begin another run at every attempt,
and leave what the last one saved. So the job's script names a file in the job's folder (`FRESH_NOTE`): the attempt that makes the
new folder writes its name there, and every later one goes on in that folder. Without such a file `fresh=true` is always anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from r1_lightning.artefacts import store
from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.config.slurm import FRESH_NOTE
from r1_lightning.run.graph.node import Node


def begun(node: Node, environment: Mapping[str, str] = os.environ) -> Artefact | None:
    """Return the artefact of `node` that an earlier attempt of this job began anew, complete or not; None if there is none."""
    note = environment.get(FRESH_NOTE)
    return begun_by(node, Path(note)) if note else None


def begun_by(node: Node, note: Path) -> Artefact | None:
    """Return the artefact of `node` that the file `note` names; None if it names none, or none that is there."""
    try:
        name = note.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    folder = node.root / name
    is_sibling = folder.parent == node.root and name.startswith(f"{node.stage.stage}-")
    if not is_sibling or store.digits_of(folder) != node.fingerprint[:SHORT_DIGITS] or not folder.is_dir():
        return None
    return (
        store.open_artefact(folder)
        if store.is_complete(folder)
        else Artefact(folder, node.stage.stage, node.fingerprint)
    )


def remember(artefact: Artefact, environment: Mapping[str, str] = os.environ) -> None:
    """Write down, in a batch job, that `artefact` was begun anew, so that later attempts resume it."""
    if note := environment.get(FRESH_NOTE):
        write_text(Path(note), f"{artefact.folder.name}\n")
