"""Tokens per second: real tokens, real time, padding left out."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest

from r1_lightning.callbacks import throughput
from r1_lightning.callbacks.throughput import SMOOTHING, Throughput
from r1_lightning.types.processes import ONE, Processes
from tests.model.tiny import pack
from tests.support.miniature import Batches, Miniature, Spy, trainer
from tests.support.processes import in_processes


@pytest.fixture
def half_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every look is half a second after the one before; Lightning keeps its own."""
    ticks = itertools.count(1)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 2))


def logged(folder: Path, batches: list, name: str, processes: Processes = ONE) -> list[float]:
    values: list[float] = []

    def after(fit: L.Trainer, *_: object) -> None:
        values.append(float(fit.callback_metrics[name]))

    miniature = Miniature(max_steps=len(batches), processes=processes)
    fit = trainer(len(batches), folder, [Throughput(), Spy("on_train_batch_end", after)], processes)
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


def _tokens_of_steps(processes: Processes, folder: Path) -> list[float]:
    """Two steps; rank 0 has 6 tokens and 2 of them, rank 1 has 3 and 4."""
    shares = [[[[1, 2, 3, 4], [5, 6]]], [[[1, 2]]]], [[[[1, 2, 3]]], [[[4, 5, 6, 7]]]]
    return logged(folder, [pack(rows, 9) for rows in shares[processes.rank]], "perf/step_tokens", processes)


def test_the_tokens_of_all_processes_count(tmp_path: Path) -> None:
    # 6 + 3 in the first step, 2 + 4 in the second.
    assert in_processes(2, _tokens_of_steps, tmp_path) == [[9.0, 6.0]] * 2
