"""The report on pre-emption: its numbers by hand, and the loop of starts and signals with a program of milliseconds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.reports.recipes import recipe_module

recipe = recipe_module("preemption")
# Ends by SIGUSR1 with 75 until a file beside it has two lines, then by itself with the code that it is given.
PROGRAM = """
import pathlib, signal, sys, time
path, code = pathlib.Path(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
count = len(path.read_text()) if path.is_file() else 0
path.write_text("." * (count + 1))
print("1/2, 50%, 00:01 elapsed, 00:01 left", flush=True)
time.sleep(0 if count == 2 else 60)
sys.exit(code)
"""


def row(run: str, measure: str, value: object) -> dict[str, str]:
    return {"seed": "0", "run": run, "measure": measure, "value": str(value)}


def test_the_table_says_what_is_equal_and_what_is_not() -> None:
    pairs = {"signals": (0, 12), "rollouts": (8, 8), "final weights, SHA-256": ("ab", "cd")}
    rows = [
        row(run, measure, value)
        for measure, pair in pairs.items()
        for run, value in zip(("undisturbed", "pre-empted"), pair, strict=True)
    ]
    assert recipe.render(rows).splitlines()[2:] == [
        "| 0 | signals | 0 | 12 |  |",
        "| 0 | rollouts | 8 | 8 | equal |",
        "| 0 | final weights, SHA-256 | ab | cd | DIFFERENT |",
    ]


def test_what_a_cut_leaves_finished_by_hand() -> None:
    # Cuts at 2, 3, 4: finished are {2}, {2}, {2, 4}, with means 2, 2 and 3; the mean of all is 3.
    assert recipe.finished_at_a_cut([2, 4]) == pytest.approx(7 / 3)
    assert recipe.finished_at_a_cut([5, 5]) == 5


def test_each_start_gets_one_signal_and_the_last_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "PROGRAM", PROGRAM)
    path = tmp_path / "starts"
    took_s = recipe.signalled([str(path), "0"], [("1/2", 0.0), ("", 0.4), ("1/2", 60.0), ("", 60.0)])
    assert len(took_s) == 2 and max(took_s) < 10 and path.read_text() == "..."


def test_a_run_that_fails_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "PROGRAM", PROGRAM)
    (tmp_path / "starts").write_text("..")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        recipe.signalled([str(tmp_path / "starts"), "2"], [("", 30.0), ("1/2", 30.0)])
    assert failed.value.returncode == 2


def test_lengths_are_written_once_per_rollout_and_must_not_change(tmp_path: Path) -> None:
    def rollout(*lengths: int, number: int = 3) -> Any:
        mask = torch.tensor([[place < length for place in range(4)] for length in lengths])
        return SimpleNamespace(number=number, generation=SimpleNamespace(completion_mask=mask))

    dataset = SimpleNamespace(rollout=rollout(2, 4))
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(dataset=dataset))
    module: Any = None
    for _ in range(2):  # in this process and in one that has resumed
        lengths = recipe.Lengths(tmp_path)
        lengths.on_train_batch_start(trainer, module)
        dataset.rollout = rollout(1, 1)
        lengths.on_train_batch_start(trainer, module)  # the same rollout's second minibatch
        dataset.rollout = rollout(2, 4)
    assert json.loads((tmp_path / "lengths" / "rollout-00003.json").read_text()) == [2, 4]
    dataset.rollout = rollout(2, 3)
    with pytest.raises(RuntimeError, match="other lengths now"):
        recipe.Lengths(tmp_path).on_train_batch_start(trainer, module)
    recipe.Lengths(tmp_path).on_train_batch_start(SimpleNamespace(datamodule=None), module)  # a stage without rollouts
