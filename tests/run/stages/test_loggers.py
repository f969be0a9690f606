"""Loggers get where to write and what the run is called; TensorBoard shows every step of a resumed run once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from r1_lightning import review
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from r1_lightning.run.stages.board import Board
from r1_lightning.run.stages.loggers import LogSettings, log_results, make_loggers, rewind
from r1_lightning.run.stages.metrics_log import MetricsLog

BOARD = {"_target_": "r1_lightning.run.stages.board.Board", "name": "", "version": "tensorboard"}
PLAIN = {**BOARD, "_target_": "lightning.pytorch.loggers.TensorBoardLogger"}


@pytest.fixture(autouse=True)
def number_event_files_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads files in the order of their names, which end in a count per process: 10 would come before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


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


@pytest.mark.parametrize("node", [BOARD, PLAIN, True])
def test_tensorboard_writes_beside_it(tmp_path: Path, node: Any) -> None:
    first, second = made(tmp_path, {"tensorboard": node})
    assert isinstance(first, MetricsLog) and isinstance(second, TensorBoardLogger)
    assert Path(second.log_dir) == tmp_path / "tensorboard"
    assert isinstance(second, Board) is (node is not PLAIN)


@pytest.mark.parametrize(("key", "name"), [("wandb", "grpo-r1_zero_tiny-seed0"), ("mine", "logs")])
def test_a_logger_is_told_what_it_asks_for(tmp_path: Path, key: str, name: str) -> None:
    folder = tmp_path / "grpo-x-0123456789"
    folder.mkdir()
    (folder / "experiment.txt").write_text("r1_zero_tiny\n")
    _, logger = made(folder, {key: {"_target_": f"{__name__}.NamedLogger", "project": "p"}})
    assert logger.seen == (str(folder), "p", folder.name, "grpo-r1_zero_tiny-seed0", name)


def test_tensorboard_is_told_the_settings_and_whether_measures_will_come(tmp_path: Path) -> None:
    own = {"logger": {"tensorboard": BOARD}, "seed": 3, "optim": {"lr": 0.5}}
    for every in (None, 20):
        config = OmegaConf.create({**own, "callbacks": {"evaluation": {"every_steps": every}}})
        _, board = make_loggers(config, tmp_path / "grpo-x-0123456789")
        assert isinstance(board, Board)
        assert board.evaluates is (every is not None)
        assert board.settings == {"seed": 3, "optim.lr": 0.5}


def test_tensorboard_draws_the_band_of_the_experiment(tmp_path: Path) -> None:
    """`r1_zero_tiny` as it is shipped: what lies at its first step in the file of its band."""
    with composing():
        config = resolved(compose_stage(["experiment=r1_zero_tiny"]).config)
    _, board = make_loggers(config, tmp_path)
    assert isinstance(board, Board)
    series = json.loads((Path(review.__file__).parent / "expected" / "r1_zero_tiny.json").read_text())["series"]
    assert board.bands.keys() == series.keys() >= {"rollout/reward_mean"}
    for name, bounds in series.items():
        assert board.bands[name][bounds["steps"][0]] == (bounds["low"][0], bounds["high"][0])
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected" / "odd.json").write_text("no band")  # of somebody, beside the runs: no reason not to train
    _, beside = make_loggers(config, tmp_path / "grpo-x-0123456789")
    assert isinstance(beside, Board) and beside.bands == board.bands
    config.model.n_layers += 1  # another model: nobody knows what it will do
    _, other = make_loggers(config, tmp_path)
    assert isinstance(other, Board) and other.bands == {}


class TrackingLogger(CSVLogger):
    """Takes what MLflow takes."""

    def __init__(self, save_dir: str, tracking_uri: str | None = None, artifact_location: str | None = None) -> None:
        super().__init__(save_dir)
        self.seen = (tracking_uri, artifact_location)


def test_mlflow_writes_into_the_run_unless_a_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    node = {"_target_": f"{__name__}.TrackingLogger", "tracking_uri": None}
    _, local = made(tmp_path, {"mlflow": node})
    assert local.seen == (f"sqlite:///{tmp_path}/mlflow.db", f"file://{tmp_path}/mlflow")
    _, named = made(tmp_path, {"mlflow": {**node, "tracking_uri": "http://tracking:5000"}})
    assert named.seen == ("http://tracking:5000", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    _, other = made(tmp_path, {"mlflow": node})
    assert other.seen == ("http://other:5000", None)


def steps(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("x")]


@pytest.mark.parametrize(("first", "begin"), [(5, 3), (5, 5), (5, 1), (9, 8), (2, 1), (7, 2)])
@pytest.mark.parametrize("node", [BOARD, PLAIN])
def test_steps_taken_again_stand_once(tmp_path: Path, first: int, begin: int, node: Any) -> None:
    """`first` steps are logged, then a resumed process goes on from step `begin` to step 10."""
    for low, high, value in ((0, first, 1.0), (begin, 10, 2.0)):
        _, logger = made(tmp_path, {"tensorboard": node})
        if low:
            rewind(logger, low)
        for step in range(low, high):
            logger.log_metrics({"x": value}, step)
        logger.finalize("success")
    assert steps(tmp_path / "tensorboard") == [(step, 1.0 if step < begin else 2.0) for step in range(10)]


def test_results_go_to_all_loggers_but_the_one_with_a_row_per_step(tmp_path: Path) -> None:
    class Fit:
        loggers = made(tmp_path, {"tensorboard": PLAIN})

    log_results({"x": 0.5}, "table", Fit(), 7)
    assert steps(tmp_path / "tensorboard") == [(7, 0.5)] and not (tmp_path / "tensorboard" / "metrics.csv").exists()


def test_results_are_no_curve_of_a_single_value(tmp_path: Path) -> None:
    class Fit:
        loggers = made(tmp_path, {"tensorboard": BOARD})

    log_results({"x": 0.5}, "table", Fit(), 7)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == [] and "results/text_summary" in events.Tags()["tensors"]


class Service(WandbLogger):
    """Weights & Biases without its package."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def log_hyperparams(self, params: Any) -> None:
        self.told.append(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.told.append((metrics, step))

    def finalize(self, status: str) -> None:
        self.told.append(status)

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(finish=lambda: self.told.append("finished"))


@pytest.mark.parametrize("measured", [{"x": 0.5}, {}])
def test_a_run_of_weights_and_biases_ends_with_its_stage(measured: dict[str, float]) -> None:
    """Else the next stage of the command goes on in the same one, and its own last lines follow the verdict."""
    service = Service()
    log_results(measured, "table", SimpleNamespace(loggers=[service]), 7)  # type: ignore[arg-type]
    assert service.told == [*([(measured, 7), "success"] if measured else []), "finished"]


def test_services_get_the_settings_when_training_starts(tmp_path: Path) -> None:
    class Fit:
        loggers = (*made(tmp_path, {"tensorboard": BOARD}), Service())

    LogSettings({"optim.lr": 0.5}).on_train_start(Fit(), None)
    assert Fit.loggers[-1].told == [{"optim.lr": 0.5}]
    assert not (tmp_path / "tensorboard").exists()
