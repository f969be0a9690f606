"""Measuring while training: at its steps, without a trace in the weights, keeping the best, across a resume too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.artefacts.weights import load_weights
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.evaluation import BEST, Evaluation
from r1_lightning.types.errors import InvalidInput
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


def run(folder: Path, evaluation: Evaluation, steps: int = 6, stop: int = 99, resume: bool = False) -> Miniature:
    miniature = Miniature(max_steps=steps)
    halt = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop))
    fit = trainer(steps, folder, [evaluation, halt, ResumeCheckpoint(folder, 100)])
    path = folder / LAST if resume else None
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
    ],
)
def test_the_best_weights_are_kept(tmp_path: Path, name: str, values: list[float], best_step: int) -> None:
    evaluation = Evaluation(1, best=name, make_measure=Values(values, name), folder=tmp_path)
    run(tmp_path, evaluation)
    assert (evaluation.best_step, evaluation.best_value) == (best_step, values[best_step - 1])
    stopped, kept = run(tmp_path / "short", Evaluation(), stop=best_step), Miniature(max_steps=6)
    load_weights(kept.model, tmp_path / BEST)
    assert fingerprint(kept.model) == fingerprint(stopped.model)


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
