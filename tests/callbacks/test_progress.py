"""The progress bar names the stage and shows few numbers, under short names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.progress import SHORT_NAMES, StageProgressBar
from r1_lightning.callbacks.rollout_logger import RolloutLogger
from r1_lightning.callbacks.throughput import Throughput
from tests.support.miniature import Miniature, Spy, rollout_config, trainer


def shown(metrics: dict[str, float]) -> dict[str, Any]:
    fake: Any = SimpleNamespace(callback_metrics={name: torch.tensor(value) for name, value in metrics.items()})
    return StageProgressBar().get_metrics(fake, fake)


def test_short_names_and_few_digits() -> None:
    found = shown({"train/loss": 1.23456, "perf/tokens_per_s": 12345.6, "train/grad_norm": 3.0})
    assert found == {"loss": "1.235", "tokens/s": "12,346"}


def test_in_rl_the_reward_stands_there_instead_of_the_loss() -> None:
    found = shown({"train/loss": 1e-9, "rollout/reward_mean": 0.5, "rollout/accuracy_mean": 0.25})
    assert found == {"reward": "0.500", "accuracy": "0.250"}


def test_before_the_first_step_there_is_nothing_to_show() -> None:
    assert shown({}) == {}


@pytest.mark.parametrize(("stage", "number"), [("pretrain", "loss"), ("grpo", "reward")])
def test_in_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, number: str) -> None:
    miniature = Miniature(max_steps=3)
    callbacks = [StageProgressBar(), Throughput(), RolloutLogger()]
    fit = trainer(3, tmp_path, callbacks, enable_progress_bar=True)
    if stage == "grpo":
        fit.fit(miniature.grpo(), datamodule=miniature.rollouts())
    else:
        fit.fit(miniature.pretrain(), datamodule=miniature.text())
    captured = capsys.readouterr()
    last = (captured.out + captured.err).replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith(stage) and "100%" in last and "3/3" in last
    assert f"{number}=" in last and "tokens/s=" in last
    assert set(SHORT_NAMES.values()) >= {number, "tokens/s"}


def test_a_resumed_run_shows_its_stage_and_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(stop: int, path: Path | None) -> list[str]:
        miniature = Miniature(max_steps=4)
        halt = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop))
        callbacks = [StageProgressBar(), ResumeCheckpoint(tmp_path, 1), halt]
        fit = trainer(4, tmp_path, callbacks, enable_progress_bar=True)
        fit.fit(miniature.grpo(), datamodule=miniature.rollouts(), ckpt_path=path, weights_only=True if path else None)
        return capsys.readouterr().out.replace("\r", "\n").strip().splitlines()

    run(2, None)
    lines = [line.strip() for line in run(4, tmp_path / LAST) if line.strip().startswith("grpo")]
    assert "2/4" in lines[0] and "4/4" in lines[-1] and "100%" in lines[-1]


def test_nothing_is_shown_before_the_stage_has_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = Miniature(max_steps=2, rollout=rollout_config(micro_batches=3))
    data = miniature.rollouts()
    settings = {"enable_progress_bar": True, "accumulate_grad_batches": data.micro_batches}
    trainer(2, tmp_path, [StageProgressBar()], **settings).fit(miniature.grpo(), datamodule=data)
    lines = capsys.readouterr().out.replace("\r", "\n").strip().splitlines()
    assert lines and all(line.startswith("grpo") and "/2" in line for line in lines if line.strip())


def test_a_log_gets_lines_now_and_then_and_a_terminal_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight steps of ten seconds each: a log shows the start, a line every twenty seconds, and the end."""
    seconds = iter(range(0, 10_000, 10))
    monkeypatch.setattr("r1_lightning.callbacks.progress.time.monotonic", lambda: float(next(seconds)))
    for is_watched in (False, True):
        monkeypatch.setattr("r1_lightning.callbacks.progress.is_watched", lambda _, answer=is_watched: answer)
        miniature = Miniature(max_steps=8)
        fit = trainer(8, tmp_path, [StageProgressBar()], enable_progress_bar=True)
        fit.fit(miniature.pretrain(), datamodule=miniature.text())
        out = capsys.readouterr().out
        steps = [line.split("/8")[0].split()[-1] for line in out.splitlines() if "/8" in line]
        assert "\r" not in out and all(line.startswith("pretrain: ") for line in out.splitlines() if "/8" in line)
        assert steps == ([str(step) for step in range(9)] if is_watched else ["0", "2", "4", "6", "8"])
