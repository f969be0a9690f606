"""Where a stage's metrics go: always to metrics.csv, and to the loggers that `logger=NAME` names, Lightning's own.

A logger is told where to write and what the run is called by the arguments that its signature has: `save_dir`, and a name. Loggers
are no part of a fingerprint: they change what is shown, and the same run is found without them.
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
    """The loggers of the run in `folder`; the first is that of metrics.csv."""
    loggers: list[Logger] = [MetricsLog(folder, name="", version=LOGS, flush_logs_every_n_steps=10)]
    # `id` is Weights & Biases': a resumed run goes on in the same one.
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
    """Has TensorBoard forget the steps that a resumed run takes again; metrics.csv forgets them by itself."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.global_step > 0:
                rewind(logger, trainer.global_step)


def rewind(logger: TensorBoardLogger, step: int) -> None:
    """Write what TensorBoard reads as "begun anew at `step`": what stands before it, of that step or later, is void."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = SessionLog(status=SessionLog.START)
    writer = logger.experiment.file_writer
    writer.add_event(Event(step=step, file_version="brain.Event:2"))
    writer.add_event(Event(step=step, session_log=start))


def log_results(metrics: dict[str, float], trainer: L.Trainer) -> None:
    """Show the final measures beside the steps; metrics.csv has a row per step, and artefact.json holds these."""
    for logger in trainer.loggers:
        if not isinstance(logger, MetricsLog):
            logger.log_metrics(dict(metrics), trainer.global_step)
            logger.finalize("success")
