"""Tokens per second: real tokens, real time, padding left out."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest

from r1_lightning.callbacks import throughput
from r1_lightning.callbacks.throughput import SMOOTHING, Throughput
from tests.model.tiny import pack
from tests.support.miniature import Batches, Miniature, Spy, trainer


@pytest.fixture
def half_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every look is half a second after the one before; Lightning keeps its own."""
    ticks = itertools.count(1)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 2))


def logged(folder: Path, batches: list, name: str) -> list[float]:
    values: list[float] = []

    def after(fit: L.Trainer, *_: object) -> None:
        values.append(float(fit.callback_metrics[name]))

    miniature = Miniature(max_steps=len(batches))
    fit = trainer(len(batches), folder, [Throughput(), Spy("on_train_batch_end", after)])
    fit.fit(miniature.pretrain(), Batches(batches))
    return values


def test_tokens_over_seconds_smoothed(tmp_path: Path, half_seconds: None) -> None:
    # 6 tokens in 0.5 s are 12 tokens/s, 2 tokens in 0.5 s are 4: then 0.9 * 12 + 0.1 * 4 = 11.2.
    batches = [pack([[[1, 2, 3, 4], [5, 6]]], 9), pack([[[1, 2]]], 9)]
    assert SMOOTHING == 0.9
    assert logged(tmp_path, batches, "perf/tokens_per_s") == pytest.approx([12.0, 11.2])


def test_step_time_is_that_of_the_step(tmp_path: Path, half_seconds: None) -> None:
    assert logged(tmp_path, [pack([[[1, 2, 3]]])] * 3, "perf/step_s") == [0.5] * 3


def test_in_rl_the_tokens_are_those_trained_on(tmp_path: Path, half_seconds: None) -> None:
    miniature = Miniature(max_steps=1)
    data = miniature.rollouts()
    fit = trainer(1, tmp_path, [Throughput()])
    fit.fit(miniature.grpo(), datamodule=data)
    tokens = int(data.dataset.micro_batches[0].tokens.is_token.sum())
    assert float(fit.callback_metrics["perf/tokens_per_s"]) == pytest.approx(tokens / 0.5)
