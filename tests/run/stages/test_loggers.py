"""Loggers get where to write and what the run is called; TensorBoard shows every step of a resumed run once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from r1_lightning.run.stages.loggers import log_results, make_loggers, rewind
from r1_lightning.run.stages.metrics_log import MetricsLog

BOARD = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "name": "", "version": "tensorboard"}


class NamedLogger(CSVLogger):
    """Takes what Weights & Biases and MLflow take."""

    def __init__(self, save_dir: str, project: str, id: str, run_name: str, name: str = "logs") -> None:
        super().__init__(save_dir, name)
        self.seen = (save_dir, project, id, run_name, name)


def made(folder: Path, loggers: dict[str, Any]) -> list[Logger]:
    return make_loggers(OmegaConf.create({"logger": loggers}), folder)


@pytest.mark.parametrize("node", [{}, None, {"tensorboard": None}])
def test_metrics_csv_is_always_written(tmp_path: Path, node: Any) -> None:
    assert [type(logger) for logger in made(tmp_path, node)] == [MetricsLog]


@pytest.mark.parametrize("node", [BOARD, True])
def test_tensorboard_writes_beside_it(tmp_path: Path, node: Any) -> None:
    first, second = made(tmp_path, {"tensorboard": node})
    assert isinstance(first, MetricsLog) and isinstance(second, TensorBoardLogger)
    assert Path(second.log_dir) == tmp_path / "tensorboard"


@pytest.mark.parametrize(("key", "name"), [("wandb", "grpo-x-0123456789"), ("mine", "logs")])
def test_a_logger_is_told_what_it_asks_for(tmp_path: Path, key: str, name: str) -> None:
    folder = tmp_path / "grpo-x-0123456789"
    _, logger = made(folder, {key: {"_target_": f"{__name__}.NamedLogger", "project": "p"}})
    assert logger.seen == (str(folder), "p", folder.name, folder.name, name)


def steps(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("x")]


@pytest.mark.parametrize(("first", "begin"), [(5, 3), (5, 5), (5, 1), (9, 8), (2, 1), (7, 2)])
def test_steps_taken_again_stand_once(tmp_path: Path, first: int, begin: int) -> None:
    """`first` steps are logged, then a resumed process goes on from step `begin` to step 10."""
    for low, high, value in ((0, first, 1.0), (begin, 10, 2.0)):
        _, logger = made(tmp_path, {"tensorboard": BOARD})
        if low:
            rewind(logger, low)
        for step in range(low, high):
            logger.log_metrics({"x": value}, step)
        logger.finalize("success")
    assert steps(tmp_path / "tensorboard") == [(step, 1.0 if step < begin else 2.0) for step in range(10)]


def test_results_go_to_all_loggers_but_the_one_with_a_row_per_step(tmp_path: Path) -> None:
    class Fit:
        loggers = made(tmp_path, {"tensorboard": BOARD})

    log_results({"x": 0.5}, Fit(), 7)
    assert steps(tmp_path / "tensorboard") == [(7, 0.5)] and not (tmp_path / "tensorboard" / "metrics.csv").exists()
