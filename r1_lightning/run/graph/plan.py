"""Plans a stage graph: composes, checks and fingerprints the target and every stage below it, and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from omegaconf import OmegaConf

from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.build.device import check_roles, settled
from r1_lightning.run.build.hf_import import model_is_typed, open_input
from r1_lightning.run.checks.tasks import check_task
from r1_lightning.run.checks.validate import validate
from r1_lightning.run.config.compose import compose_parent, compose_stage
from r1_lightning.run.config.stage_config import BASE, StageConfig
from r1_lightning.run.graph.fingerprints import stage_fingerprint
from r1_lightning.run.graph.inheriting import from_input
from r1_lightning.run.graph.node import Node
from r1_lightning.types.errors import require


def plan(target: StageConfig) -> Node:
    """Compose, check and fingerprint `target` and all stages below it; writes nothing.

    Raises `InvalidInput` for a bad value anywhere in the graph, a bad `init_from`, or a stage that needs itself.
    """
    planner = _Planner(bool(target.config.get("dry_run")))
    node = planner.plan(target, ())
    check_roles(node.stage.config, planner.roles)
    return node


class _Planner:
    """Plans one graph. Stages may share an input, so each distinct stage is composed, checked and fingerprinted once.

    `is_dry`: only the cost is asked for, so no weights of a checkpoint are read, and no examples.
    """

    def __init__(self, is_dry: bool) -> None:
        self._is_dry = is_dry
        self._composed: dict[tuple[str, ...], StageConfig] = {}
        self._planned: dict[tuple[object, ...], Node] = {}
        self.roles: set[str] = set()  # of all inputs in the graph

    def plan(self, stage: StageConfig, below: tuple[str, ...]) -> Node:
        """Return the node of `stage`; `below` names the stages on the path to the target, to find circles."""
        stage = settled(stage)
        key = (
            stage.stage,
            stage.overrides,
            stage.cli_overrides,
            tuple(stage.choices.items()),
            OmegaConf.to_yaml(stage.config),
        )
        if key not in self._planned:
            self._planned[key] = self._plan(stage, (*below, stage.name))
        return self._planned[key]

    def _plan(self, stage: StageConfig, path: tuple[str, ...]) -> Node:
        decides = isinstance(stage.config.init_from, str) and not model_is_typed(stage)
        # If `init_from` decides the model, the composed one is not used, and may be too small for the other settings.
        if not decides:
            validate(stage.config)
        given = None if stage.config.init_from is None else open_input(stage.config.init_from, is_dry=self._is_dry)
        if (changed := from_input(stage, given)) is not stage or decides:
            stage = changed
            validate(stage.config)  # again: the longest row and the sampler's rules depend on the model
        check_task(stage.config, self._is_dry)
        # `init_from` gives a base also to a stage that has none in its options.
        inputs: dict[str, Node | Artefact] = {} if given is None else {BASE: given}
        for role, spec in stage.inputs.items():
            if role in inputs:
                continue
            if spec.folder is not None:
                inputs[role] = open_input(spec.folder, f"stage.inputs.{role}.folder", self._is_dry)
                continue
            maker = spec.experiment or spec.stage
            require(maker not in path, f"stage.inputs.{role}", maker, f"it would need itself ({' <- '.join(path)})")
            inputs[role] = self.plan(compose_parent(stage, role, self._compose), path)
        self.roles.update(inputs)
        digest = stage_fingerprint(stage, {role: source.fingerprint for role, source in inputs.items()})
        return Node(stage, digest, inputs)

    def _compose(self, overrides: Sequence[str], config_name: str) -> StageConfig:
        """Compose from a cache and return a copy: Hydra reads every option file each time, which takes most of a plan's time."""
        key = (config_name, *overrides)
        if key not in self._composed:
            self._composed[key] = compose_stage(overrides, config_name)
        stage = self._composed[key]
        return replace(stage, config=stage.config.copy())
