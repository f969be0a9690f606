"""Measuring while training: at its steps, without a trace in the weights, keeping the best, across a resume too."""

from __future__ import annotations

import csv
import itertools
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.artefacts.weights import load_weights
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.evaluation import BEST, Evaluation
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.run.stages.metrics_log import MetricsLog
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.stopping import REPEATED_S, STOP
from tests.support.miniature import Miniature, Spy, fingerprint, trainer


class Values:
    """A `make_measure` that hands out given values, one a time, and disturbs what a measurement must not."""

    def __init__(self, values: list[float], name: str = "val/x") -> None:
        self.values, self.name, self.asked = list(values), name, None
        self.training: list[bool] = []

    def __call__(self, problems: int, samples: int) -> Any:
        self.asked = (problems, samples)

        def measure(module: Any) -> dict[str, float]:
            torch.rand(7)
            self.training.append(module.training or module.backbone.training)
            assert not torch.is_grad_enabled()
            return {self.name: self.values.pop(0)}

        return measure


def run(
    folder: Path, evaluation: Evaluation, steps: int = 6, stop: int = 99, resume: bool = False, **more: Any
) -> Miniature:
    miniature, saver = Miniature(max_steps=steps), ResumeCheckpoint(folder, 100)
    halt = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop))
    fit = trainer(steps, folder, [evaluation, halt, Interruption(None, saver), saver], **more)
    path = folder / LAST if resume else None
    with STOP.listening(), STOP.between_polls():
        fit.fit(miniature.pretrain(), datamodule=miniature.text(), ckpt_path=path, weights_only=True if path else None)
    miniature.metrics = {name: float(value) for name, value in fit.callback_metrics.items()}
    return miniature


@pytest.mark.parametrize(("every", "times"), [(1, 6), (2, 3), (3, 2), (4, 2), (5, 2), (6, 1), (50, 1)])
def test_at_every_so_many_steps_and_at_the_last(tmp_path: Path, every: int, times: int) -> None:
    values = Values([float(number) for number in range(times)])
    with_it = run(tmp_path, Evaluation(every, 7, 3, make_measure=values, folder=tmp_path))
    assert values.values == [] and values.asked == (7, 3) and values.training == [False] * times
    assert with_it.metrics["val/x"] == times - 1 and with_it.metrics["perf/evaluation_s"] > 0
    assert not (tmp_path / BEST).exists()


def test_the_weights_are_the_same_bits_with_and_without(tmp_path: Path) -> None:
    without = run(tmp_path / "without", Evaluation())
    with_it = run(tmp_path / "with", Evaluation(1, make_measure=Values([0.0] * 6)))
    assert fingerprint(with_it.model) == fingerprint(without.model)


@pytest.mark.parametrize(
    ("name", "values", "best_step"),
    [
        ("val/x", [0.1, 0.5, 0.3, 0.5, 0.2, 0.4], 2),
        ("val/x", [0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 1),
        ("val/loss", [3.0, 2.0, 1.0, 1.5, 1.0, 4.0], 3),
        ("val/loss", [3.0, 2.0, 1.0, 0.5, 0.4, 0.3], 6),
        ("val/x", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1),
        ("val/x", [math.nan, 0.1, math.nan, 0.3, 0.2, math.nan], 4),
        ("val/loss", [math.nan, 3.0, 2.0, 2.5, math.nan, 2.5], 3),
    ],
)
def test_the_best_weights_are_kept(tmp_path: Path, name: str, values: list[float], best_step: int) -> None:
    evaluation = Evaluation(1, best=name, make_measure=Values(values, name), folder=tmp_path)
    run(tmp_path, evaluation)
    assert (evaluation.best_step, evaluation.best_value) == (best_step, values[best_step - 1])
    stopped, kept = run(tmp_path / "short", Evaluation(), stop=best_step), Miniature(max_steps=6)
    load_weights(kept.model, tmp_path / BEST)
    assert fingerprint(kept.model) == fingerprint(stopped.model)


def test_what_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    evaluation = Evaluation(1, best="val/x", make_measure=Values([math.nan] * 6), folder=tmp_path)
    evaluation.load_state_dict({"best_value": math.nan, "best_step": 3})  # as a former version kept it
    run(tmp_path, evaluation)
    assert evaluation.best_value is None and not (tmp_path / BEST).exists()


def test_a_resumed_run_knows_the_best_so_far(tmp_path: Path) -> None:
    first = Evaluation(1, best="val/x", make_measure=Values([0.1, 0.9, 0.2]), folder=tmp_path)
    run(tmp_path, first, stop=3)
    second = Evaluation(1, best="val/x", make_measure=Values([0.5, 0.6, 0.7]), folder=tmp_path)
    run(tmp_path, second, resume=True)
    assert (second.best_step, second.best_value) == (2, 0.9)


def test_the_cost_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, Evaluation(2, make_measure=Values([0.0] * 3)))
    out = capsys.readouterr().out
    assert out.count("evaluation after step 2:") == out.count("evaluation after") == 1 and "of the time so far" in out


def test_a_measure_that_is_not_there_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, Evaluation(1, best="val/y", make_measure=Values([0.0] * 6), folder=tmp_path))
    assert capsys.readouterr().out.count("best weights are not kept: val/y is not among val/x") == 1
    assert not (tmp_path / BEST).exists()
    with pytest.raises(
        InvalidInput, match=r"callbacks\.evaluation\.best='pass_at_1'.*it must be a measure such as val/"
    ):
        Evaluation(best="pass_at_1")


@pytest.mark.parametrize(
    "settings", [{"every_steps": 0}, {"every_steps": -1}, {"problems": 0}, {"samples": 0}, {"samples": 1.5}]
)
def test_bad_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=rf"callbacks\.evaluation\.{next(iter(settings))}="):
        Evaluation(**settings)


class Cut(Values):
    """A measurement during which `signals` come, a second apart, before it polls; from the `number`-th on."""

    def __init__(self, values: list[float], number: int, signals: int = 1) -> None:
        super().__init__(values)
        self.number, self.signals = number, signals

    def __call__(self, problems: int, samples: int) -> Any:
        measure, counted = super().__call__(problems, samples), itertools.count(1)

        def cut(module: Any) -> dict[str, float]:
            if next(counted) == self.number:
                for _ in range(self.signals):
                    os.kill(os.getpid(), signal.SIGUSR1)
                    STOP.asked_s -= REPEATED_S
                STOP.poll()
            return measure(module)

        return cut


@pytest.fixture
def logger(tmp_path: Path) -> MetricsLog:
    return MetricsLog(tmp_path, name="", version="logs", flush_logs_every_n_steps=1)


def logged(logger: MetricsLog, name: str) -> list[str]:
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        return [row.get(name, "") for row in csv.DictReader(file)]


def test_a_measurement_cut_short_is_made_by_the_next_process(tmp_path: Path, logger: MetricsLog) -> None:
    """Every two of six steps; the second measurement, after step 4, is cut short, and step 4 is saved nonetheless."""
    given: dict[str, Any] = {"logger": logger, "log_every_n_steps": 1}
    first = Evaluation(2, best="val/x", make_measure=Cut([0.125, 0.75], 2), folder=tmp_path)
    run(tmp_path, first, **given)
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 4 and first.due_step == 4
    assert logged(logger, "val/x") == ["", "0.125", "", ""]
    given["logger"] = MetricsLog(tmp_path, name="", version="logs", flush_logs_every_n_steps=1)
    second = Evaluation(2, best="val/x", make_measure=Values([0.75, 0.25]), folder=tmp_path)
    resumed = run(tmp_path, second, resume=True, **given)
    assert logged(logger, "val/x") == ["", "0.125", "", "0.75", "", "0.25"]
    assert [bool(loss) for loss in logged(logger, "train/loss")] == [True] * 6
    assert (second.best_step, second.best_value, second.due_step) == (4, 0.75, 0)
    assert fingerprint(resumed.model) == fingerprint(run(tmp_path / "whole", Evaluation()).model)


def test_after_the_last_step_training_ends_and_the_measurement_is_due(tmp_path: Path, logger: MetricsLog) -> None:
    evaluation = Evaluation(6, make_measure=Cut([0.5], 1), folder=tmp_path)
    run(tmp_path, evaluation, logger=logger, log_every_n_steps=1)
    assert evaluation.due_step == 6 and not (tmp_path / LAST).exists()
    late = Evaluation(6, make_measure=Values([0.5]), folder=tmp_path)
    late.load_state_dict(evaluation.state_dict())

    class Fit:
        loggers = (MetricsLog(tmp_path, name="", version="logs"),)

    stage: Any = Miniature(max_steps=6).pretrain()
    fit: Any = Fit()
    assert late.catch_up(fit, stage, 5) == {}  # nothing is due after another step
    assert late.catch_up(fit, stage, 6)["val/x"] == 0.5 and late.due_step == 0
    assert logged(logger, "val/x") == ["", "", "", "", "", "0.5"]


def test_a_second_signal_leaves_a_measurement_at_once(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, Evaluation(2, make_measure=Cut([0.125], 1, signals=2), folder=tmp_path))
    assert not (tmp_path / LAST).exists()
