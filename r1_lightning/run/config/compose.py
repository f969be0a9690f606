"""Composes the configurations of a stage and of the stages that make its inputs.

One command line describes a whole graph. The stage it names is composed by Hydra as usual. A stage that makes one of
its inputs shares with it everything in `SHARED` (the model, the task, the precision, the trainer, the seed, ...),
values set on the command line or by an experiment included; everything else (data, rollout, reward, optim, stage) is
its own, from its own option files, so that `optim.lr=1e-3` for GRPO does not retrain the base model.

`stage.inputs` gives the source of each role:

- the stage that makes it: `base: pretrain`;
- that stage with overrides: `helpful: {stage: reward_model, overrides: ["optim.lr=0.002"]}`;
- a whole experiment, a stage with all its settings and inputs: `base: {experiment: r1_dev2_tiny}`. So experiments compose into a
  graph. Such an input shares with the child only the command-line overrides for the whole graph, not the child's experiment;
- a finished artefact: `helpful: {folder: FOLDER}`. A folder wins, so `+stage.inputs.helpful.folder=FOLDER` is enough.

`stage.parent_overrides=["optim.lr=0.002"]` are overrides for the stage that makes the base. Other inputs start from the same base:
`parent_overrides` and `init_from` are passed on to the stages that make them, unless their own overrides set these keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import r1_lightning
from r1_lightning.run.config.hydra_errors import explain
from r1_lightning.run.config.moved_names import use_present_names
from r1_lightning.run.config.quoting import readable
from r1_lightning.run.config.settle import settle
from r1_lightning.run.config.stage_config import BASE, StageConfig, override_list
from r1_lightning.types.errors import InvalidInput

HYDRA_VERSION_BASE = "1.3"


SHARED_GROUPS = ("model", "task", "precision", "trainer", "callbacks", "logger", "launcher", "paths")


SHARED = (*SHARED_GROUPS, "seed")


# Groups whose choices the stages of inputs inherit. `debug` is chosen but not copied, because it sets values of many groups.
PASSED_ON = (*SHARED_GROUPS, "debug")


@contextmanager
def composing(configs: Path | None = None, own: Path | None = None) -> Iterator[None]:
    """Initialise Hydra with our configs/ (or another folder), so that `compose_stage` can be called inside the block.

    `own` is a user's folder of more options (`--config-dir`). `hydra.main` does the same for the command line of `r1 train`.
    """
    with hydra.initialize_config_dir(str(configs or config_folder()), version_base=HYDRA_VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        if own is not None and isinstance(loader, ConfigLoaderImpl):
            search_path = loader.get_search_path()
            search_path.prepend("command-line", f"file://{own}", anchor="schema")  # the place that hydra.main gives it
            loader.repository.initialize_sources(search_path)
        yield


def from_hydra(config: DictConfig) -> StageConfig:
    """Return the stage that `hydra.main` has just composed; call it inside the task function."""
    composed = HydraConfig.get()
    overrides = OmegaConf.to_container(composed.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return _stage_config(config, dict(composed.runtime.choices), composed.job.config_name, overrides)


def compose_stage(overrides: Sequence[str], config_name: str = "train") -> StageConfig:
    """Compose a stage from overrides; Hydra must be initialised. Raises `InvalidInput` for every error of the configuration."""
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
    use_present_names(config)
    settle(config, str(chosen["stage"]), overrides)
    cli_overrides = tuple(override for override in overrides if _key(override) in (*PASSED_ON, "seed"))
    return StageConfig(str(chosen["stage"]), chosen, config, config_name, tuple(overrides), cli_overrides)


def _key(override: str) -> str:
    """Return the group, or the first part of the path, that an override sets. GROUP@PACKAGE is another key than GROUP."""
    return re.split(r"[.=]", override.lstrip("+~"), maxsplit=1)[0]


Compose = Callable[[Sequence[str], str], StageConfig]  # from overrides and the name of the primary configuration


def compose_parent(child: StageConfig, role: str, compose: Compose = compose_stage) -> StageConfig:
    """Compose the configuration of the stage that makes `child`'s input `role` (see the module's docstring).

    A shared group that the input's overrides set is not copied from the child: a student's teacher may be another model.
    """
    spec = child.inputs[role]
    for_base = _parent_overrides(child)
    extra = [*for_base, *spec.overrides] if role == BASE else list(spec.overrides)
    if spec.experiment is not None:
        parent = compose([spec.maker, *child.cli_overrides, *extra], child.config_name)
        return replace(parent, overrides=tuple(extra), cli_overrides=child.cli_overrides)
    choices = {group: child.choices.get(group) for group in PASSED_ON}
    if choices["model"] not in options("model"):  # the model of an init_from folder, which the parent reads for itself
        choices["model"] = None
    chosen = [f"{group}={choice}" for group, choice in choices.items() if choice is not None]
    parent = compose([spec.maker, *chosen, *extra], child.config_name)
    own = {_key(override) for override in extra}
    own_keys = {override.lstrip("+~").partition("=")[0] for override in extra}
    resolved = OmegaConf.to_container(child.config, resolve=False)
    assert isinstance(resolved, dict)
    OmegaConf.set_struct(parent.config, False)
    # The child's values, not only its choices: what an experiment or the command line changed in a group holds for inputs, too.
    for key in SHARED:
        if key not in own and key in resolved:
            parent.config[key] = resolved[key]
    if role != BASE and BASE in parent.config.stage.inputs:
        if "stage.parent_overrides" not in own_keys:
            parent.config.stage.parent_overrides = for_base
        if "init_from" not in own_keys:
            parent.config.init_from = child.config.init_from
    OmegaConf.set_struct(parent.config, True)
    # Only the input's own overrides: nobody gave the inherited choices for this stage on a command line.
    return replace(parent, overrides=tuple(extra), cli_overrides=child.cli_overrides)


def _parent_overrides(child: StageConfig) -> list[str]:
    plain = OmegaConf.to_container(child.config, resolve=True)
    assert isinstance(plain, dict)
    return override_list("stage.parent_overrides", plain["stage"].get("parent_overrides"))


def options(group: str) -> list[str]:
    """Return the names of a config group's options; Hydra must be initialised."""
    loader = GlobalHydra.instance().config_loader()
    return sorted(option for option in loader.get_group_options(group) if not option.startswith("_"))


def config_folder() -> Path:
    """The configurations: the copy inside an installed package, or configs/ of the checkout."""
    package = Path(r1_lightning.__file__).resolve().parent
    copy = package / "configs"  # made by setup.py
    return copy if copy.is_dir() else package.parent / "configs"
