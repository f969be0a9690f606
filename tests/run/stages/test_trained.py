"""Training that has ended is not done again: an evaluation that was cut short starts from the weights on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from r1_lightning.artefacts.leftovers import CHECKPOINTS, TRAINED, remove_leftovers
from r1_lightning.artefacts.store import WEIGHTS
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.evaluation import Evaluation
from r1_lightning.callbacks.interruption import Interruption
from r1_lightning.run.stages.trained import trained
from r1_lightning.types.errors import InvalidInput, Stopped
from tests.support.miniature import Miniature, Spy, fingerprint, trainer

STEPS = 3


class Measured:
    """A `make_measure` whose first measurements are cut short."""

    def __init__(self, cut: int = 0) -> None:
        self.cut = cut

    def __call__(self, problems: int, samples: int) -> Any:
        def measure(module: Any) -> dict[str, float]:
            self.cut -= 1
            if self.cut >= 0:
                raise Stopped("interrupted", 75)
            return {"val/x": 0.1 + 0.2}

        return measure


def run(folder: Path, *callbacks: L.Callback, seed: int = 0) -> tuple[dict[str, float], Miniature]:
    miniature, saver = Miniature(max_steps=STEPS, seed=seed), ResumeCheckpoint(folder / CHECKPOINTS, 1)
    own = [*callbacks, Interruption(None, saver), saver]
    metrics = trained(trainer(STEPS, folder, own), miniature.pretrain(), miniature.text(), folder)
    return metrics, miniature


def never(*_: object) -> None:
    pytest.fail("it was trained already")


def test_the_second_process_takes_weights_and_metrics_from_disk(tmp_path: Path) -> None:
    metrics, first = run(tmp_path)
    again, second = run(tmp_path, Spy("on_train_start", never), seed=1)
    assert again == metrics and "train/loss" in metrics
    assert fingerprint(second.model) == fingerprint(first.model)
    assert not (tmp_path / CHECKPOINTS / "none").exists() and (tmp_path / WEIGHTS).is_file()
    remove_leftovers(tmp_path)
    assert not (tmp_path / TRAINED).exists()


def test_a_measurement_that_is_due_after_the_last_step_is_made_from_the_weights_on_disk(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, Evaluation(STEPS, make_measure=Measured(cut=2)))  # in training, and again after it
    noted = json.loads((tmp_path / TRAINED).read_text())
    assert noted["evaluation"]["due_step"] == STEPS and "val/x" not in noted["metrics"]
    metrics, _ = run(tmp_path, Spy("on_train_start", never), Evaluation(STEPS, make_measure=Measured()))
    assert metrics["val/x"] == 0.30000001192092896  # 0.1 + 0.2 in FP32, as Lightning logs it
    # The third process measures nothing, and knows the number to its last bit.
    again, _ = run(tmp_path, Evaluation(STEPS, make_measure=Measured(cut=1)))
    assert again == metrics


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"metrics": 3, "evaluation": null}', '{"metrics": {"a": []}}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str) -> None:
    run(tmp_path)
    (tmp_path / TRAINED).write_text(text)
    with pytest.raises(InvalidInput, match=r"trained=.*remove it to train on from the last checkpoint"):
        run(tmp_path)


def test_weights_that_are_gone_are_named(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(InvalidInput, match="there is no such file"):
        run(tmp_path)
