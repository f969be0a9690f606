"""One planned stage of the graph: its configuration, its fingerprint and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1_lightning.artefacts import store
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.config.stage_config import StageConfig


@dataclass(frozen=True)
class Node:
    """A planned stage: its configuration, its fingerprint, its inputs as nodes or (from `init_from`) as artefacts."""

    stage: StageConfig
    fingerprint: str
    inputs: Mapping[str, Node | Artefact]

    @property
    def root(self) -> Path:
        return Path(self.stage.config.paths.root)

    def found(self) -> Artefact | None:
        """Return the stage's artefact, complete or not; None if there is none."""
        return store.find(self.root, self.stage.stage, self.fingerprint)
