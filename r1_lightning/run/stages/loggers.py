"""A stage's loggers: metrics.csv always, and the loggers of Lightning that `logger=NAME` names.

A logger gets its folder and the run's label through the arguments that its signature has: `save_dir`, and a name. Loggers are not
part of a fingerprint: they change what is shown, and a command finds the same run without them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts.run_label import experiment_of, label
from r1_lightning.review import run_files
from r1_lightning.review.expected import band_for, known, shipped
from r1_lightning.run.checks.loggers import BOARD
from r1_lightning.run.config.inject import inject
from r1_lightning.run.stages.board import Bands, Board, settings_of
from r1_lightning.run.stages.metrics_log import MetricsLog
from r1_lightning.types.errors import InvalidInput

LOGS = "tensorboard"  # the folder of metrics.csv and TensorBoard's files in an artefact


def make_loggers(config: DictConfig, folder: Path) -> list[Logger]:
    """Make the loggers of the run in `folder`; the first writes metrics.csv."""
    loggers: list[Logger] = [MetricsLog(folder, name="", version=LOGS, flush_logs_every_n_steps=10)]
    given = _given(config, folder)
    for name, node in (config.get("logger") or {}).items():
        if node is True:
            node = DictConfig({"_target_": BOARD, "name": "", "version": LOGS})
        if not node:
            continue
        # `name` is a part of the folder for loggers that write files, and what people see for Weights & Biases.
        own = {"name": given["run_name"]} if name == "wandb" and node.get("name") is None else {}
        if node.get("tracking_uri") is None:
            own |= _tracking(folder.absolute())
        loggers.append(inject(node, {**given, **own}))
    return loggers


def _given(config: DictConfig, folder: Path) -> dict[str, Any]:
    """What loggers may ask for, by the name of the argument."""
    called = label(folder.name, experiment_of(folder), config.get("name"), config.get("seed", 0))
    evaluation = (config.get("callbacks") or {}).get("evaluation") or {}
    return {
        "save_dir": str(folder),
        "run_name": called,
        "id": folder.name,  # of Weights & Biases: a resumed run continues the same run there
        "settings": settings_of(config),
        "evaluates": evaluation.get("every_steps") is not None,
        "bands": _bands(config, folder),
    }


def _bands(config: DictConfig, folder: Path) -> Bands:
    """Where the curves of the run are expected, if a band was made for such settings (`review/expected.py`)."""
    try:
        bands = known(folder)
    except (
        InvalidInput
    ):  # of a file that somebody put beside the runs: the verdict tells, and training does not depend on it
        bands = shipped()
    found = band_for(run_files.settings_of(OmegaConf.to_container(config, resolve=True)), bands)
    if found is None:
        return {}
    band, _ = found
    bounds = {name: zip(of.steps, of.low, of.high, strict=True) for name, of in band.series.items()}
    return {name: {step: (low, high) for step, low, high in points} for name, points in bounds.items()}


def _tracking(folder: Path) -> dict[str, str]:
    """Where MLflow writes: the server of the environment, or files of the run; Lightning's default, a plain folder, it refuses."""
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        return {"tracking_uri": server}
    return {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "artifact_location": (folder / "mlflow").as_uri()}


class Rewind(L.Callback):
    """Makes TensorBoard drop the steps that a resumed run takes again; metrics.csv drops them by itself."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.global_step > 0 and trainer.is_global_zero:
                rewind(logger, trainer.global_step)


def rewind(logger: TensorBoardLogger, step: int) -> None:
    """Write the event that means "restarted at `step`": TensorBoard then ignores earlier events of that step or later."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = SessionLog(status=SessionLog.START)
    writer = logger.experiment.file_writer
    writer.add_event(Event(step=step, file_version="brain.Event:2"))
    writer.add_event(Event(step=step, session_log=start))


class LogSettings(L.Callback):
    """Gives the run's settings to the services that compare runs; `Board` logs them at the end, beside the results."""

    def __init__(self, settings: Mapping[str, float | str]) -> None:
        self.settings = dict(settings)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger | MLFlowLogger):
                logger.log_hyperparams(self.settings)


def log_results(measured: dict[str, float], table: str, trainer: L.Trainer, step: int) -> None:
    """Log the measures of the trained model to all loggers but metrics.csv, which has rows of steps only; artefact.json has them.

    `Board` shows them beside the settings, with the `table` of them; to the others they are values at the last step.
    """
    for logger in trainer.loggers:
        if isinstance(logger, Board):
            logger.log_results(measured, table, step)
        elif measured and not isinstance(logger, MetricsLog):
            logger.log_metrics(dict(measured), step)
            logger.finalize("success")
        if isinstance(logger, WandbLogger):  # the next stage of this command would go on in the same run there
            logger.experiment.finish()
