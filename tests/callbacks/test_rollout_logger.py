"""Rollout scalars once per rollout, and sample completions as text every so many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from r1_lightning.callbacks.rollout_logger import SAMPLES_SHOWN, RolloutLogger, as_code
from r1_lightning.types.errors import InvalidInput
from tests.support.miniature import Miniature, Spy, trainer


class Texts(TensorBoardLogger):
    """A TensorBoard logger whose writer notes the texts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="logs")
        self.texts: list[tuple[str, str, int]] = []

    @property
    def experiment(self) -> Any:
        return self

    def add_text(self, tag: str, text: str, step: int) -> None:
        self.texts.append((tag, text, step))

    def __getattr__(self, name: str) -> Any:  # scalars and files: written nowhere
        return lambda *_, **__: None


def test_scalars_are_those_of_the_rollout_in_use(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=4)
    data = miniature.rollouts()
    seen: list[dict[str, float]] = []

    def after(fit: L.Trainer, *_: Any) -> None:
        assert data.dataset.rollout is not None
        summary = data.dataset.rollout.summary()
        seen.append(summary)
        for name, value in summary.items():
            assert float(fit.callback_metrics[name]) == pytest.approx(value)

    trainer(4, tmp_path, [RolloutLogger(), Spy("on_train_batch_end", after)]).fit(miniature.grpo(), datamodule=data)
    assert len(seen) == 4 and seen[0] == seen[1] != seen[2]
    assert {"rollout/reward_mean", "rollout/accuracy_mean", "rollout/completion_tokens_mean"} <= seen[0].keys()


def test_scalars_are_logged_once_per_rollout(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=6)
    logged: list[int] = []
    module = miniature.grpo()
    original = module.log

    def log(name: str, *arguments: Any, **settings: Any) -> None:
        if name == "rollout/reward_mean":
            logged.append(module.global_step)
        original(name, *arguments, **settings)

    module.log = log
    trainer(6, tmp_path, [RolloutLogger()]).fit(module, datamodule=miniature.rollouts())
    assert logged == [0, 2, 4]


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 2, 4]), (2, [0, 4]), (10, [0])])
def test_texts_come_every_so_many_rollouts(tmp_path: Path, every: int, steps: list[int]) -> None:
    miniature = Miniature(max_steps=6)
    writer = Texts(tmp_path)
    fit = trainer(6, tmp_path, [RolloutLogger(text_every=every)], logger=writer, log_every_n_steps=1)
    fit.fit(miniature.grpo(), datamodule=miniature.rollouts())
    assert [step for _, _, step in writer.texts] == steps
    assert {tag for tag, _, _ in writer.texts} == {"rollout/samples"}


def test_a_text_shows_question_answer_reward_and_completion(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=1)
    writer, data = Texts(tmp_path), miniature.rollouts()
    trainer(1, tmp_path, [RolloutLogger()], logger=writer).fit(miniature.grpo(), datamodule=data)
    rollout = data.dataset.rollout
    assert rollout is not None
    text = writer.texts[0][1]
    assert SAMPLES_SHOWN > 3  # so that each of the three prompts is shown, with its first completion
    for prompt, problem in enumerate(rollout.problems):
        shown = text.split("**")[2 * prompt + 1 : 2 * prompt + 3]
        assert shown[0] == problem.question
        reward = rollout.rewards[prompt, 0].item()
        lines = f"    {rollout.texts[4 * prompt]}\n\n    accuracy: a hash"
        assert shown[1].strip() == f"(answer {problem.answer}, reward {reward:g})\n\n{lines}"


def test_pretraining_has_no_rollouts_and_no_harm_is_done(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=2)
    fit = trainer(2, tmp_path, [RolloutLogger()])
    fit.fit(miniature.pretrain(), datamodule=miniature.text())
    assert fit.global_step == 2 and not any(name.startswith("rollout/") for name in fit.callback_metrics)


def test_a_bad_period_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"callbacks\.rollout_logger\.text_every=0"):
        RolloutLogger(text_every=0)


def test_every_line_of_a_sample_is_indented() -> None:
    assert as_code("<think>\n1+1\n\n</think> 2") == "    <think>\n    1+1\n    \n    </think> 2"
