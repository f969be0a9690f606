"""A training that is asked to stop ends its step, has it saved, and the same training goes on with the same bits."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.stopping import REPEATED_S, STOP
from tests.support.miniature import HashReward, Miniature, Spy, fingerprint, trainer

EVERY = 100  # no checkpoint but the one of the interruption


def send(number: int, at_step: int, times: int = 1) -> Spy:
    def before(fit: object, *_: object) -> None:
        if fit.global_step == at_step:
            for _ in range(times):
                os.kill(os.getpid(), number)
                STOP.asked_s -= REPEATED_S  # the next one comes that much later

    return Spy("on_train_batch_start", before)


def run(folder: Path, *more: object, max_time: str | None = None, steps: int = 6) -> tuple[Interruption, Miniature]:
    miniature, saver = Miniature(max_steps=steps), ResumeCheckpoint(folder, EVERY)
    interruption = Interruption(max_time, saver)
    fit = trainer(steps, folder, [*more, interruption, saver])
    path = checkpoint_to_resume(folder)
    with STOP.listening(), STOP.between_polls():
        fit.fit(miniature.pretrain(), datamodule=miniature.text(), ckpt_path=path, weights_only=True if path else None)
    return interruption, miniature


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
@pytest.mark.parametrize("step", [0, 1, 4])
def test_a_signal_saves_the_step_in_hand(tmp_path: Path, number: int, code: int, step: int) -> None:
    before = signal.getsignal(number)
    interruption, _ = run(tmp_path / "parts", send(number, step))
    assert interruption.stopped is not None and interruption.stopped.code == code
    assert torch.load(tmp_path / "parts" / LAST, weights_only=True)["global_step"] == step + 1
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


class Halves:
    """A loader of steps of two micro-batches, which continues at its cursor, as `StepLoader` does."""

    def __init__(self) -> None:
        self.batches, self.cursor = list(Miniature(max_steps=8).text().train_dataloader()), 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[object]:
        while self.cursor < len(self.batches):
            self.cursor += 1
            yield self.batches[self.cursor - 1]

    def state_dict(self) -> dict[str, int]:
        return {"cursor": self.cursor}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.cursor = state["cursor"]


def in_halves(folder: Path, *more: object) -> Miniature:
    miniature, saver = Miniature(max_steps=4), ResumeCheckpoint(folder, EVERY)
    fit = trainer(4, folder, [*more, Interruption(None, saver), saver], accumulate_grad_batches=2)
    path = checkpoint_to_resume(folder)
    with STOP.listening(), STOP.between_polls():
        fit.fit(miniature.pretrain(), Halves(), ckpt_path=path, weights_only=True if path else None)
    return miniature


@pytest.mark.parametrize("index", [4, 5])  # a step's first half and its second
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_backward", "on_train_batch_end"])
def test_a_step_of_several_micro_batches_is_given_up_or_whole(tmp_path: Path, hook: str, index: int) -> None:
    """The third of four steps is cut short before its second half begins; its first half is taken again."""
    kill = Spy(hook, lambda fit, *_: fit.fit_loop.epoch_loop.batch_idx == index and strike())
    ended_whole = hook != "on_train_batch_start" and index == 5
    with nullcontext() if ended_whole else pytest.raises(Stopped):
        in_halves(tmp_path / "parts", kill)
    assert torch.load(tmp_path / "parts" / LAST, weights_only=True)["global_step"] == (3 if ended_whole else 2)
    assert fingerprint(in_halves(tmp_path / "parts").model) == fingerprint(in_halves(tmp_path / "whole").model)


def strike(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_a_batch_that_is_cut_short_is_made_again(tmp_path: Path) -> None:
    """The signal comes while the batch of the fourth step is made, as a rollout is; a checkpoint every 100 steps has none."""

    class Cut(Halves):
        def __iter__(self) -> Iterator[object]:
            for batch in super().__iter__():
                if self.cursor == 4:
                    torch.rand(3)  # a batch may use the global generators; making it again must draw the same numbers
                    strike()
                    STOP.poll()
                yield batch

    def fit(loader: Halves) -> Miniature:
        miniature, saver = Miniature(max_steps=8), ResumeCheckpoint(tmp_path / "parts", EVERY)
        path = checkpoint_to_resume(tmp_path / "parts")
        given = {"ckpt_path": path, "weights_only": True if path else None}
        note = Spy("on_train_batch_end", lambda fit, *_: drawn.append(torch.get_rng_state()))
        with STOP.listening(), STOP.between_polls():
            trainer(8, tmp_path, [note, Interruption(None, saver), saver]).fit(miniature.pretrain(), loader, **given)
        return miniature

    drawn: list[torch.Tensor] = []
    with pytest.raises(Stopped) as stopped:
        fit(Cut())
    saved = torch.load(tmp_path / "parts" / LAST, weights_only=True)
    assert saved["global_step"] == 3 and stopped.value.code == 75
    assert torch.equal(saved["generators"]["torch"], drawn[2])
    assert fingerprint(fit(Halves()).model) == fingerprint(run(tmp_path / "whole", steps=8)[1].model)


def grpo(folder: Path) -> Miniature:
    """Six steps with a rollout of 12 completions every two."""
    miniature, saver = Miniature(), ResumeCheckpoint(folder, EVERY)
    path = checkpoint_to_resume(folder)
    given = {"ckpt_path": path, "weights_only": True if path else None}
    with STOP.listening(), STOP.between_polls():
        fit = trainer(6, folder, [Interruption(None, saver), saver])
        fit.fit(miniature.grpo(), datamodule=miniature.rollouts(), **given)
    return miniature


@pytest.mark.parametrize(("target", "name"), [(Sampler, "_draw"), (HashReward, "__call__")])
@pytest.mark.parametrize("call", [3, 17, 29])  # of some 10 tokens and 12 rewards in each of three rollouts
def test_a_rollout_cut_short_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: type, name: str, call: int
) -> None:
    """The signal comes between tokens or between rewards; the steps before that rollout are saved, and the weights end equal."""
    original, calls = getattr(target, name), itertools.count(1)

    def cut(self: object, *given: object) -> object:
        if next(calls) == call:
            strike()
        assert STOP.asked is None or next(after) == 0, "no second token and no second reward"
        return original(self, *given)

    after = itertools.count(0)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, cut)
        with pytest.raises(Stopped):
            grpo(tmp_path / "parts")
    saved = tmp_path / "parts" / LAST
    assert not saved.exists() if call == 3 else torch.load(saved, weights_only=True)["global_step"] in (2, 4)
    assert fingerprint(grpo(tmp_path / "parts").model) == fingerprint(grpo(tmp_path / "whole").model)


@pytest.mark.parametrize("hook", ["on_before_backward", "on_after_backward"])
def test_a_step_that_compiles_is_left_at_once(tmp_path: Path, hook: str) -> None:
    """The signal comes in a forward, or after the backward: only the first is left, the other step ends."""
    miniature, saver = Miniature(max_steps=6), ResumeCheckpoint(tmp_path, EVERY)
    own = [
        Interruption(None, saver, compiles=True),
        Spy(hook, lambda fit, *_: fit.global_step == 2 and strike()),
        saver,
    ]
    with (
        STOP.listening(),
        STOP.between_polls(),
        pytest.raises(Stopped) if hook == "on_before_backward" else nullcontext(),
    ):
        trainer(6, tmp_path, own).fit(miniature.pretrain(), datamodule=miniature.text())
    steps = torch.load(tmp_path / LAST, weights_only=True)["global_step"]
    assert steps == (2 if hook == "on_before_backward" else 3)


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
