"""Configurations of a stage and of the stages that make its inputs, and Hydra's refusals in one line.

One command line describes a whole graph. The stage it names is composed by Hydra as usual. A stage that makes one of
its inputs shares with it everything in `SHARED` (the model, the task, the precision, the trainer, the seed, ...),
values set on the command line or by an experiment included; everything else (data, rollout, reward, optim, stage) is
its own, from its own option files, so that `optim.lr=1e-3` for GRPO does not retrain the base model.

`stage.inputs` names for each role the stage that makes it (`base: pretrain`), or settings for that stage besides
(`helpful: {stage: reward_model, overrides: ["optim.lr=0.002"]}`), or a whole experiment (`base: {experiment: r1_dev2_tiny}`: a
stage with all its settings and inputs, so that experiments compose into a graph; it shares with the child only what was typed for
the whole graph, not what the child's own experiment says), or a finished artefact
(`helpful: {folder: FOLDER}`; a folder wins, so that `+stage.inputs.helpful.folder=FOLDER` is all that has to be typed).
`stage.parent_overrides=["optim.lr=0.002"]` are settings for the maker of the base. Other inputs begin with the same base: what
decides it (`parent_overrides`, `init_from`) is passed on to their makers, which may be told otherwise.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1_lightning.run.quoting import readable
from r1_lightning.run.settle import settle
from r1_lightning.types.errors import InvalidInput

HYDRA_VERSION_BASE = "1.3"
SHARED_GROUPS = ("model", "task", "precision", "trainer", "callbacks", "logger", "launcher", "paths")
SHARED = (*SHARED_GROUPS, "seed")
# Chosen for the makers of inputs, too, but not copied: these options set values all over the configuration.
PASSED_ON = (*SHARED_GROUPS, "debug")


BASE = "base"  # the input that a stage begins with, and that `init_from` replaces


@dataclass(frozen=True)
class InputSpec:
    """One of `stage` or `experiment`, which makes the input, with `overrides` of its own, or `folder`, where it lies already."""

    stage: str | None = None
    overrides: tuple[str, ...] = ()
    folder: str | None = None
    experiment: str | None = None

    @classmethod
    def of(cls, path: str, node: object) -> InputSpec:
        """As `stage.inputs` writes it (see the module's docstring)."""
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
        overrides = _overrides(f"{path}.overrides", node.get("overrides"))
        if not all(isinstance(node[key], str) for key in node if key != "overrides"):
            raise InvalidInput(f"{path}={node!r} is not allowed: {allowed}")
        return cls(node.get("stage"), tuple(overrides), node.get("folder"), node.get("experiment"))

    @property
    def maker(self) -> str:
        """The choice of Hydra's that makes it."""
        return f"stage={self.stage}" if self.experiment is None else f"experiment={self.experiment}"


@dataclass(frozen=True)
class StageConfig:
    """One stage's configuration: its name, the option chosen in each group, the composed values, what was typed."""

    stage: str
    choices: dict[str, str | None]
    config: DictConfig
    config_name: str
    overrides: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()  # for the whole graph: what of the command line concerns `PASSED_ON`
    notes: tuple[str, ...] = ()  # lines on what it took from its input unasked

    @property
    def name(self) -> str:
        """What people call it: its experiment, or its stage where there is none."""
        return self.choices.get("experiment") or self.stage

    @property
    def inputs(self) -> dict[str, InputSpec]:
        """Role of each input -> where it comes from. InvalidInput for one that says nothing, or too much."""
        inputs = OmegaConf.to_container(self.config.stage, resolve=True)["inputs"]
        return {str(role): InputSpec.of(f"stage.inputs.{role}", node) for role, node in inputs.items()}


@contextmanager
def composing(configs: Path | None = None) -> Iterator[None]:
    """Hydra with the checkout's configs/ (or those of another folder): within it `compose_stage` can be called.

    `hydra.main` does the same for the command line of `scripts/train.py`.
    """
    with hydra.initialize_config_dir(str(configs or config_folder()), version_base=HYDRA_VERSION_BASE):
        yield


def from_hydra(config: DictConfig) -> StageConfig:
    """The stage that `hydra.main` has just composed; call it inside the task function."""
    composed = HydraConfig.get()
    typed = OmegaConf.to_container(composed.overrides.task, resolve=False)
    assert isinstance(typed, list)
    return _stage_config(config, dict(composed.runtime.choices), composed.job.config_name, typed)


def compose_stage(overrides: Sequence[str], config_name: str = "train") -> StageConfig:
    """Compose from overrides; Hydra must be initialised. Raises `InvalidInput` for whatever Hydra refuses."""
    overrides = readable(overrides)
    try:
        config = hydra.compose(config_name, overrides=overrides, return_hydra_config=True)
    except Exception as error:
        line = explain(error, overrides, config_name)
        if line is None:
            raise
        raise InvalidInput(line) from error
    choices = dict(config.hydra.runtime.choices)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return _stage_config(config, choices, config_name, overrides)


def _stage_config(
    config: DictConfig, choices: dict[str, str | None], config_name: str, overrides: Sequence[str]
) -> StageConfig:
    chosen = {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
    if chosen.get("stage") is None:
        raise InvalidInput(f"stage=None is not allowed: it must be one of {', '.join(options('stage'))}")
    settle(config, str(chosen["stage"]), overrides)
    typed = tuple(override for override in overrides if _key(override) in (*PASSED_ON, "seed"))
    return StageConfig(str(chosen["stage"]), chosen, config, config_name, tuple(overrides), typed)


def _key(override: str) -> str:
    """What an override sets first: the group or the top of the path. GROUP@PACKAGE is another place than GROUP, and another key."""
    return re.split(r"[.=]", override.lstrip("+~"), maxsplit=1)[0]


Compose = Callable[[Sequence[str], str], StageConfig]  # from overrides and the name of the primary configuration


def compose_parent(child: StageConfig, role: str, compose: Compose = compose_stage) -> StageConfig:
    """The configuration of the stage that makes `child`'s input `role` (see the module's docstring).

    A shared group that the overrides name is taken as composed there, not from the child: a student's teacher may be another model.
    """
    spec = child.inputs[role]
    for_base = _parent_overrides(child)
    extra = [*for_base, *spec.overrides] if role == BASE else list(spec.overrides)
    if spec.experiment is not None:
        parent = compose([spec.maker, *child.typed, *extra], child.config_name)
        return replace(parent, overrides=tuple(extra), typed=child.typed)
    choices = {group: child.choices.get(group) for group in PASSED_ON}
    if choices["model"] not in options("model"):  # a folder's own, which init_from says once more
        choices["model"] = None
    chosen = [f"{group}={choice}" for group, choice in choices.items() if choice is not None]
    parent = compose([spec.maker, *chosen, *extra], child.config_name)
    own = {_key(override) for override in extra}
    own_keys = {override.lstrip("+~").partition("=")[0] for override in extra}
    resolved = OmegaConf.to_container(child.config, resolve=False)
    assert isinstance(resolved, dict)
    OmegaConf.set_struct(parent.config, False)
    for key in SHARED:
        if key not in own and key in resolved:
            parent.config[key] = resolved[key]
    if role != BASE and BASE in parent.config.stage.inputs:
        if "stage.parent_overrides" not in own_keys:
            parent.config.stage.parent_overrides = for_base
        if "init_from" not in own_keys:
            parent.config.init_from = child.config.init_from
    OmegaConf.set_struct(parent.config, True)
    # What was typed for it; the groups passed on were not.
    return replace(parent, overrides=tuple(extra), typed=child.typed)


def _parent_overrides(child: StageConfig) -> list[str]:
    plain = OmegaConf.to_container(child.config, resolve=True)
    assert isinstance(plain, dict)
    return _overrides("stage.parent_overrides", plain["stage"].get("parent_overrides"))


def _overrides(path: str, overrides: object) -> list[str]:
    given = [] if overrides is None else overrides
    if not isinstance(given, list) or not all(isinstance(override, str) for override in given):
        raise InvalidInput(f'{path}={overrides!r} is not allowed: it must be a list such as ["optim.lr=0.002"]')
    return given


def options(group: str) -> list[str]:
    """The options of a config group, by name; Hydra must be initialised."""
    loader = GlobalHydra.instance().config_loader()
    return sorted(option for option in loader.get_group_options(group) if not option.startswith("_"))


def resolved(config: DictConfig) -> DictConfig:
    """A copy with every interpolation replaced by its value."""
    copy = config.copy()
    OmegaConf.resolve(copy)
    return copy


def explain(error: BaseException, overrides: Iterable[str], config_name: str) -> str | None:
    """What a person needs to know of a composition error, in one line; None if it is not about the configuration."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option!r} is not allowed: it must be one of {', '.join(sorted(error.options))}"
    if isinstance(error, OverrideParseException):
        return f"the override {error.override!r} is not allowed: {_one_line(_first_line(error))}; it must be key=value"
    if isinstance(error, ConfigCompositionException):
        match = re.search(r"Could not (?:override|delete from config) '?([\w./@-]+?)'?\.(?:\s|$)", str(error))
        if match:
            return _unknown_key(match[1], overrides, config_name)
    if isinstance(error, ValueError) and "Config group override must be a string" in str(error):
        groups = [o for o in overrides if "." not in o.partition("=")[0]]
        return f"one of {', '.join(groups)} is not allowed: a group takes the name of one of its options"
    if isinstance(error, (HydraException, OmegaConfBaseException, yaml.YAMLError)):
        return f"the configuration is not allowed: {_one_line(str(error).partition('Config search path')[0])}"
    return None


def _first_line(error: BaseException) -> str:
    text = str(error).split("See https://", 1)[0]
    return text.split("\n", 1)[1] if text.startswith("Error parsing override") and "\n" in text else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unknown_key(key: str, overrides: Iterable[str], config_name: str) -> str:
    """Name the keys nearest to a mistyped one, among the defaults' keys where the other overrides are wrong as well."""
    typed = [override for override in overrides if override.lstrip("+~").partition("=")[0] != key]
    known: list[str] = []
    for attempt in (typed, []):
        try:
            known = list(_dotted(OmegaConf.to_container(hydra.compose(config_name, overrides=attempt), resolve=False)))
            break
        except Exception:  # whatever it is, the defaults serve
            continue
    last = key.rpartition(".")[2]
    same_name = [candidate for candidate in known if candidate.rpartition(".")[2] == last]
    close = difflib.get_close_matches(key, [k for k in known if "._" not in k and k.count(".") >= key.count(".")], n=3)
    near = list(dict.fromkeys(close + same_name))[:3]
    value = next((o.partition("=")[2] for o in overrides if o.lstrip("+~").partition("=")[0] == key), "")
    hint = f"did you mean {' or '.join(near)}?" if near else "--cfg job prints the keys there are"
    return f"{key}={value} is not allowed: there is no such key; {hint}"


def _dotted(node: object, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")


def config_folder() -> Path:
    """The checkout's configs/."""
    return Path(__file__).resolve().parents[2] / "configs"
