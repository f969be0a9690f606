"""One planned stage of the graph: its configuration, its fingerprint and its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from r1_lightning.artefacts import store
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.types.errors import require


@dataclass(frozen=True)
class Node:
    """A planned stage: its configuration, its fingerprint, its inputs as nodes or (from `init_from`) as artefacts."""

    stage: StageConfig
    fingerprint: str
    inputs: Mapping[str, Node | Artefact]

    @property
    def root(self) -> Path:
        return Path(self.stage.config.paths.root)

    @property
    def short_name(self) -> str:
        """The stage and the first digits of the fingerprint: "grpo-0123456789"."""
        return f"{self.stage.stage}-{self.fingerprint[:SHORT_DIGITS]}"

    def found(self) -> Artefact | None:
        """Return the stage's artefact, complete or not; None if there is none."""
        return store.find(self.root, self.stage.stage, self.fingerprint)


def stages_of(node: Node) -> Iterator[Node]:
    """Yield each stage of the graph of `node` once, inputs before what is made from them."""
    done: dict[str, Node] = {}

    def collect(stage: Node) -> None:
        if stage.fingerprint not in done:
            for source in stage.inputs.values():
                if isinstance(source, Node):
                    collect(source)
            done[stage.fingerprint] = stage

    collect(node)
    yield from done.values()


def part_of(node: Node, name: str | None) -> Node:
    """Return the stage of the graph with this `short_name`, by default the target. `InvalidInput` if there is none."""
    if name is None:
        return node
    stages = {stage.short_name: stage for stage in stages_of(node)}
    require(name in stages, "only", name, f"it must be one of {', '.join(stages)}")
    return stages[name]
