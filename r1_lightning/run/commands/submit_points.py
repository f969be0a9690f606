"""The runs that a command line of `r1 submit` asks for: one, or with `-m` those of a sweep, each planned as `r1 train` plans it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate

from r1_lightning.run.checks.declared import check_declared
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.place import asks_for_several, wanted
from r1_lightning.run.config.quoting import readable
from r1_lightning.run.config.slurm import Slurm
from r1_lightning.run.config.targets import find_own_modules
from r1_lightning.run.graph.node import Node
from r1_lightning.run.graph.plan import plan
from r1_lightning.types.errors import InvalidInput, require

LAUNCHER, SWEEP, CONFIG_DIR = "launcher=slurm", ("-m", "--multirun"), ("--config-dir", "-cd")
NOT_FOR_THE_RUN = ("launcher", "dry_run")  # keys that `submit` reads itself


@dataclass(frozen=True)
class Point:
    """One run that is asked for: the words of `r1 train` that make it, and its planned graph.

    `configs` is the folder of the user's own options, and `fresh` that the target is to be made anew.
    """

    words: tuple[str, ...]
    node: Node
    launcher: Slurm
    root: Path
    processes_per_node: int = 1
    configs: Path | None = None
    fresh: bool = False


def is_dry(arguments: Sequence[str]) -> bool:
    """True if the scripts are only to be printed."""
    return any(word.lower() == "dry_run=true" for word in arguments)


def points_of(arguments: Sequence[str]) -> list[Point]:
    """Return the planned runs of a command line. Raises `InvalidInput` for whatever `r1 train` would refuse, and more."""
    find_own_modules()
    words, configs = _without_configs([word for word in arguments if word not in SWEEP])
    options = [word for word in words if word.startswith("-")]
    require(not options, "submit", " ".join(options), "it takes KEY=VALUE, -m for a sweep, and --config-dir FOLDER")
    if not any(word.startswith("launcher=") for word in words):
        words.insert(0, LAUNCHER)
    runs = _sweep(words) if any(word in SWEEP for word in arguments) else [words]
    with composing(own=configs):
        return [_point(run, configs) for run in runs]


def _without_configs(words: Sequence[str]) -> tuple[list[str], Path | None]:
    """Return `words` without the flag for a folder of options, and that folder. `InvalidInput` if it is absent, or given twice."""
    left: list[str] = []
    folders: list[str] = []
    given = iter(words)
    for word in given:
        flag, is_joined, folder = word.partition("=")
        if flag in CONFIG_DIR:
            folders.append(folder if is_joined else next(given, ""))
        else:
            left.append(word)
    require(len(folders) < 2, "--config-dir", " ".join(folders), "it must be one folder")
    for folder in folders:
        require(bool(folder) and os.path.isdir(folder), "--config-dir", folder, "it must be a folder that is there")
    return left, Path(os.path.abspath(folders[0])) if folders else None


def _sweep(words: Sequence[str]) -> list[list[str]]:
    """Return the command lines of the runs of a sweep, in the order of `r1 train -m`."""
    try:
        parsed = OverridesParser.create().parse_overrides(readable(words))
    except HydraException as error:
        raise InvalidInput(" ".join(str(error).split())) from error
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(run) for run in batch]


def _point(words: Sequence[str], configs: Path | None) -> Point:
    asked = [word for word in words if not word.startswith("dry_run=")]
    config = compose_stage(asked).config
    check_declared(config)
    require("_target_" in config.launcher, "launcher", "local", "it must be slurm: a job is asked of a cluster")
    if config.fresh:
        allowed = "with stage.shards above 1 each job would make a folder of its own"
        require(config.stage.get("shards", 1) == 1, "fresh", True, allowed)
    require(config.get("only") is None, "only", config.get("only"), "a submission makes whole graphs")
    launcher = instantiate(config.launcher, _convert_="all")
    root = Path(os.path.abspath(config.paths.root))
    run = [word for word in asked if word.lstrip("+~").partition("=")[0].partition(".")[0] not in NOT_FOR_THE_RUN]
    if config.trainer.accelerator == "auto":  # decided here: where a job is submitted there may be no GPU
        run.append(f"trainer.accelerator={'gpu' if launcher.gpus_per_node or launcher.gres else 'cpu'}")
    run = readable([*run, f"paths.root={root}"])
    processes = _processes_per_node(config.trainer, launcher)
    return Point(tuple(run), plan(compose_stage(run)), launcher, root, processes, configs, bool(config.fresh))


def _processes_per_node(trainer: Mapping[str, Any], launcher: Slurm) -> int:
    """Return how many processes `srun` starts on each node: `trainer.devices` if typed, else one per GPU."""
    several = asks_for_several(trainer)
    allowed = "one process works on one node; trainer=ddp divides the work among the GPUs of several"
    require(several or launcher.nodes == 1, "launcher.nodes", launcher.nodes, allowed)
    nodes = trainer.get("num_nodes", 1)
    require(
        nodes in (1, launcher.nodes), "trainer.num_nodes", nodes, f"launcher.nodes={launcher.nodes} says it already"
    )
    typed = wanted(trainer)
    return (typed if typed > 1 else max(1, launcher.gpus_per_node)) if several else 1
