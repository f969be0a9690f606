"""The function that runs each kind of stage, in a table by class.

A stage that trains is a `LightningModule` and needs no line of its own: one more objective, or PPO, runs as all of them do. A stage
of another kind has one line. Everything else that `run` knows of a kind is in one place each, because rooms import downwards only:

    what must be there before it begins    `needs` of the stage's and the data module's classes; how each need is looked at:
                                           `CHECKS` in `run/checks/tasks.py`
    which data it trains on                `batch_type` of both classes, compared in `run/checks/rules.py`
    what it would cost                     `COUNTED` in `run/cost/counted.py`, by the class of its data
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import lightning as L
from omegaconf import DictConfig

from r1_lightning.artefacts.store import Artefact
from r1_lightning.evaluation.comparison import Comparison
from r1_lightning.rollout.rejection_sampling import RejectionSampling
from r1_lightning.run.config.declarations import class_of, line_of
from r1_lightning.run.stages.compare import run_comparison
from r1_lightning.run.stages.rejection_sampling import run_sampling
from r1_lightning.run.stages.train import run_training
from r1_lightning.types.errors import InvalidInput

# Configuration, name of the stage, its folder, its inputs by role -> final metrics; None if shards of other processes are missing.
Run = Callable[[DictConfig, str, Path, dict[str, Artefact]], Mapping[str, float] | None]

RUNS: dict[type, Run] = {
    L.LightningModule: run_training,
    RejectionSampling: run_sampling,
    Comparison: run_comparison,
}


def run_stage(
    config: DictConfig, stage_name: str, folder: Path, inputs: dict[str, Artefact]
) -> Mapping[str, float] | None:
    """Run `stage_name` in `folder` from `inputs`, resuming if it was interrupted; returns the final metrics.

    Raises `InvalidInput` for a target that is not a stage, for a damaged checkpoint or input, and OSErrors of a folder that cannot
    be written.
    """
    run = line_of(RUNS, class_of(config.stage))
    if run is None:
        kinds = ", ".join(kind.__name__ for kind in RUNS)
        allowed = f"it must be a {kinds}, or a subclass of one"
        raise InvalidInput(f"stage._target_={config.stage['_target_']!r} is not allowed: {allowed}")
    return run(config, stage_name, folder, inputs)
