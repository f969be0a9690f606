"""Rollout scalars once per rollout, and sample completions as text every so many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from r1_lightning.callbacks.rollout_logger import RolloutLogger, log_samples
from r1_lightning.callbacks.sample_texts import Sample, markdown, plain, shown_samples
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


def test_a_text_shows_completions_of_the_rollout_in_use(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=1)
    writer, data = Texts(tmp_path), miniature.rollouts()
    trainer(1, tmp_path, [RolloutLogger()], logger=writer).fit(miniature.grpo(), datamodule=data)
    rollout = data.dataset.rollout
    assert rollout is not None
    text = writer.texts[0][1]
    assert text == markdown(shown_samples(rollout))
    for problem in rollout.problems:
        assert f"    question  {problem.question}\n    answer    {problem.answer}\n" in text
    assert re.search(r"    accuracy [\d.]+ +a hash\n", text)


class Tables(WandbLogger):
    """Weights & Biases without its package: notes the tables."""

    def __init__(self) -> None:
        self.tables: list[dict[str, Any]] = []

    def log_text(self, key: str, **given: Any) -> None:
        self.tables.append({"key": key, **given})


class Files(MLFlowLogger):
    """MLflow without its package: notes the files."""

    run_id = "seven"

    def __init__(self) -> None:
        self.files: list[tuple[str, str, str]] = []

    @property
    def experiment(self) -> Any:
        return self

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.files.append((run_id, text, artifact_file))


def test_weights_and_biases_gets_a_table_mlflow_a_file_and_others_nothing(tmp_path: Path) -> None:
    sample = Sample(0, "highest reward", "1+1", "2", "2\u202e", 1.5, [("accuracy", 1.0, "right")], 3, True)
    tables, files = Tables(), Files()
    for logger in (tables, files, CSVLogger(tmp_path)):
        log_samples(logger, [sample], 20)
    (table,) = tables.tables
    assert (table["key"], table["step"]) == ("rollout/samples", 20)
    assert dict(zip(table["columns"], table["data"][0], strict=True)) == {
        "prompt": 1,
        "rank": "highest reward",
        "question": "1+1",
        "answer": "2",
        "reward": 1.5,
        "reasons": "accuracy 1: right",
        "tokens": 3,
        "ended": True,
        "completion": r"2\u202e",
    }
    assert files.files == [("seven", f"Prompt 1, highest reward\n{plain(sample)}\n", "rollout/samples/step_000020.txt")]
    assert not list(tmp_path.iterdir())


def test_pretraining_has_no_rollouts_and_no_harm_is_done(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=2)
    fit = trainer(2, tmp_path, [RolloutLogger()])
    fit.fit(miniature.pretrain(), datamodule=miniature.text())
    assert fit.global_step == 2 and not any(name.startswith("rollout/") for name in fit.callback_metrics)


def test_a_bad_period_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"callbacks\.rollout_logger\.text_every=0"):
        RolloutLogger(text_every=0)
