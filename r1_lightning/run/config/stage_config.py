"""One stage's composed configuration, and the source of each of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from r1_lightning.types.errors import InvalidInput

BASE = "base"  # the input that a stage starts from, which `init_from` replaces


@dataclass(frozen=True)
class InputSpec:
    """The source of an input: a `stage` or an `experiment` that makes it, with `overrides`, or the `folder` of an artefact."""

    stage: str | None = None
    overrides: tuple[str, ...] = ()
    folder: str | None = None
    experiment: str | None = None

    @classmethod
    def of(cls, path: str, node: object) -> InputSpec:
        """Parse a node of `stage.inputs` (see the docstring of `compose`)."""
        if isinstance(node, str):
            return cls(node)
        allowed = (
            "it must be the name of a stage, {stage: NAME, overrides: [...]}, {experiment: NAME, overrides: [...]}, "
            "or {folder: FOLDER}"
        )
        if isinstance(node, dict):  # null takes back what an option file says
            node = {key: value for key, value in node.items() if value is not None}
        known = isinstance(node, dict) and set(node) <= {"stage", "overrides", "folder", "experiment"}
        makers = set(node) & {"stage", "experiment"} if isinstance(node, dict) else set()
        if not isinstance(node, dict) or not known or len(makers) > 1 or not (makers or "folder" in node):
            raise InvalidInput(f"{path}={node!r} is not allowed: {allowed}")
        overrides = override_list(f"{path}.overrides", node.get("overrides"))
        if not all(isinstance(node[key], str) for key in node if key != "overrides"):
            raise InvalidInput(f"{path}={node!r} is not allowed: {allowed}")
        return cls(node.get("stage"), tuple(overrides), node.get("folder"), node.get("experiment"))

    @property
    def maker(self) -> str:
        """The Hydra override that selects the stage or experiment that makes the input."""
        return f"stage={self.stage}" if self.experiment is None else f"experiment={self.experiment}"


@dataclass(frozen=True)
class StageConfig:
    """One stage's configuration: its name, the option chosen in each group, the composed values, the overrides."""

    stage: str
    choices: dict[str, str | None]
    config: DictConfig
    config_name: str
    overrides: tuple[str, ...] = ()
    cli_overrides: tuple[str, ...] = ()  # of the command line, for the whole graph (groups in `PASSED_ON`)
    notes: tuple[str, ...] = ()  # lines about the settings that it took from its input

    @property
    def name(self) -> str:
        """The name for people: its experiment, or its stage if there is none."""
        return self.choices.get("experiment") or self.stage

    @property
    def inputs(self) -> dict[str, InputSpec]:
        """The source of each input, by role. InvalidInput for an input with no source, or with several."""
        inputs = OmegaConf.to_container(self.config.stage, resolve=True)["inputs"]
        return {str(role): InputSpec.of(f"stage.inputs.{role}", node) for role, node in inputs.items()}


def override_list(path: str, overrides: object) -> list[str]:
    given = [] if overrides is None else overrides
    if not isinstance(given, list) or not all(isinstance(override, str) for override in given):
        raise InvalidInput(f'{path}={overrides!r} is not allowed: it must be a list such as ["optim.lr=0.002"]')
    return given


def resolved(config: DictConfig) -> DictConfig:
    """Return a copy with every interpolation replaced by its value."""
    copy = config.copy()
    OmegaConf.resolve(copy)
    return copy
