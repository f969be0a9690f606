"""A stage's loggers: metrics.csv always, and the loggers of Lightning that `logger=NAME` names.

A logger gets its folder and the run's name through the arguments that its signature has: `save_dir`, and a name. Loggers are not
part of a fingerprint: they change what is shown, and a command finds the same run without them.
"""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig

from r1_lightning.run.checks.loggers import TENSORBOARD
from r1_lightning.run.config.inject import inject
from r1_lightning.run.stages.metrics_log import MetricsLog

LOGS = "tensorboard"  # the folder of metrics.csv and TensorBoard's files in an artefact


def make_loggers(config: DictConfig, folder: Path) -> list[Logger]:
    """Make the loggers of the run in `folder`; the first writes metrics.csv."""
    loggers: list[Logger] = [MetricsLog(folder, name="", version=LOGS, flush_logs_every_n_steps=10)]
    # `id` is an argument of Weights & Biases: a resumed run continues the same run there.
    given = {"save_dir": str(folder), "run_name": folder.name, "id": folder.name}
    for name, node in (config.get("logger") or {}).items():
        if node is True:
            node = DictConfig({"_target_": TENSORBOARD, "name": "", "version": LOGS})
        if not node:
            continue
        if name == "wandb" and node.get("name") is None:
            given["name"] = folder.name
        loggers.append(inject(node, given))
    return loggers


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


def log_results(metrics: dict[str, float], trainer: L.Trainer, step: int) -> None:
    """Log the final measures to all loggers but metrics.csv, which has rows of steps only; artefact.json holds them as well."""
    for logger in trainer.loggers:
        if not isinstance(logger, MetricsLog):
            logger.log_metrics(dict(metrics), step)
            logger.finalize("success")
