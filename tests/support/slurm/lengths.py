"""The lengths of each rollout's completions, of one process among several, in files beside those of the others."""

from __future__ import annotations

from pathlib import Path

from r1_lightning.types.processes import processes_now
from reports.preemption.recipe import LENGTHS, Lengths


class OwnLengths(Lengths):
    """Writes them to the artefact's folder lengths-RANK, and refuses a rollout that comes out otherwise the second time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder / f"{LENGTHS}-{processes_now().rank}"
