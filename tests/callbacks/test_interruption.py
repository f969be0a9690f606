"""A training that is asked to stop ends its step, has it saved, and the same training goes on with the same bits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from r1_lightning.callbacks.checkpoint import LAST, ResumeCheckpoint, checkpoint_to_resume
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.types.errors import InvalidInput, Stopped
from tests.support.miniature import Batches, Miniature, Spy, fingerprint, trainer

EVERY = 100  # no checkpoint but the one of the interruption


def send(number: int, at_step: int, times: int = 1) -> Spy:
    def before(fit: object, *_: object) -> None:
        if fit.global_step == at_step:
            for _ in range(times):
                os.kill(os.getpid(), number)
                time.sleep(0.01)

    return Spy("on_train_batch_start", before)


def run(folder: Path, *more: object, max_time: str | None = None, steps: int = 6) -> tuple[Interruption, Miniature]:
    miniature, interruption = Miniature(max_steps=steps), Interruption(max_time)
    fit = trainer(steps, folder, [*more, interruption, ResumeCheckpoint(folder, EVERY)])
    path = checkpoint_to_resume(folder)
    fit.fit(miniature.pretrain(), datamodule=miniature.text(), ckpt_path=path, weights_only=True if path else None)
    return interruption, miniature


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
@pytest.mark.parametrize("step", [0, 1, 4])
def test_a_signal_saves_the_step_in_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, code: int, step: int
) -> None:
    before = signal.getsignal(number)
    interruption, _ = run(tmp_path / "parts", send(number, step))
    assert interruption.stopped is not None and interruption.stopped.code == code
    assert torch.load(tmp_path / "parts" / LAST, weights_only=True)["global_step"] == step + 1
    assert "stopping after this step; once more leaves at once" in capsys.readouterr().err
    assert signal.getsignal(number) == before, "signals do again what they did"
    _, resumed = run(tmp_path / "parts")
    _, whole = run(tmp_path / "whole")
    assert fingerprint(resumed.model) == fingerprint(whole.model)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_second_signal_leaves_at_once(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        run(tmp_path, send(number, 2, times=2))
    assert stopped.value.code == 128 + number and not (tmp_path / LAST).exists()
    assert signal.getsignal(number) == before


def test_a_signal_in_the_last_step_lets_training_end(tmp_path: Path) -> None:
    interruption, _ = run(tmp_path, send(signal.SIGTERM, 5))
    assert interruption.stopped is None and not (tmp_path / LAST).exists()


def test_a_step_of_several_micro_batches_is_ended_first(tmp_path: Path) -> None:
    miniature, interruption = Miniature(max_steps=6), Interruption()
    loader = Batches(list(miniature.text().train_dataloader()))
    first = Spy("on_train_batch_start", lambda fit, _, __, index: index == 2 and os.kill(os.getpid(), signal.SIGTERM))
    callbacks = [first, interruption, ResumeCheckpoint(tmp_path, EVERY)]
    trainer(3, tmp_path, callbacks, accumulate_grad_batches=2).fit(miniature.pretrain(), loader)
    saved = torch.load(tmp_path / LAST, weights_only=True)
    assert saved["global_step"] == 2
    assert saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == 4  # two of two


def test_a_time_that_is_over_stops_after_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 20))  # seconds: 0 at the start, 20 after the first step, 40 after the second, ...
    monkeypatch.setattr("r1_lightning.callbacks.interruption.time.monotonic", lambda: float(next(clock)))
    interruption, _ = run(tmp_path, max_time="00:01:00")
    assert interruption.stopped is not None and interruption.stopped.code == 124
    assert "trainer.max_time=00:01:00 is over" in str(interruption.stopped)
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 3  # 60 s


@pytest.mark.parametrize("text", ["", "10", "1:2", "00:00:00", "0:60:00", "00:00:61", "a:b:c", "-1:00:00", "1:2:3:4:5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"trainer\.max_time="):
        Interruption(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00:01", 1), ("01:02:03", 3723), ("2:00:00:05", 172805), ("100:00:00", 360000)]
)
def test_times(text: str, seconds: float) -> None:
    assert Interruption(text).max_s == seconds
