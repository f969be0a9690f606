"""Each line that a finished run prints for copying is run here, by the very commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from r1_lightning.run.commands import evaluate_command, export, review_run
from r1_lightning.run.commands.board import labels
from r1_lightning.run.graph.last_words import ending, next_steps, verdict
from tests.review.rule_cases import PRETRAINING
from tests.run.test_endings import Captured, pretrain
from tests.support.commands import folder, overrides, train
from tests.support.run_folders import write_run


def lines(text: str) -> dict[str, list[str]]:
    """What to do -> the command's words, of the last block that was printed before the verdict."""
    block = [part for part in text.rstrip().split("\n\n") if not part.startswith("verdict: ")][-1].splitlines()
    return {line.split("  ")[0].strip(): shlex.split(line.split("  ", 1)[1]) for line in block}


def run(words: list[str], main: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> int:
    assert words[0] == "python" and Path(words[1]).is_file()  # from where the person stands
    monkeypatch.setattr(sys, "argv", words[1:])
    return main()


@pytest.mark.parametrize("name", ["runs", "my runs (1)"])
def test_the_lines_of_a_trained_model_work(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(name)
    finished = pretrain(root, capsys, "logger=tensorboard")
    assert finished.code == 0, finished.err
    made, words = folder(root, "pretrain"), lines(finished.out)
    assert list(words) == ["review", "look", "measure", "train on", "export"]
    judged = "verdict: healthy: no rule is broken (there is no band for these settings)"
    assert finished.out.splitlines()[-1] == judged  # the last line of all, also of a run that was complete already
    assert pretrain(root, capsys, "logger=tensorboard").out.splitlines()[-1] == judged
    assert run(words["review"], review_run.main, monkeypatch) == 0 and (made / "review.html").is_file()
    python, script, shown = words["look"]
    assert python == "python" and Path(script).is_file() and list(labels(Path(shown)).values()) == [made]
    assert list(made.rglob("events.out.tfevents.*"))
    few = ["--problems", "2", "--samples", "1", "--max-new-tokens", "8"]
    assert run([*words["measure"], *few], evaluate_command.main, monkeypatch) == 0
    assert run(words["export"], export.main, monkeypatch) == 0
    assert (tmp_path / "exports" / made.name / "config.json").is_file()
    small = [
        override for override in overrides(root, grpo_steps=2, evaluation=False) if not override.startswith("stage=")
    ]
    assert train([*words["train on"][2:], *small], capsys).code == 0


def test_a_data_set_is_trained_on_and_others_have_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = store.Artefact(tmp_path / "it's", "sample", "0" * 64, complete=True, files={"part-0.jsonl": {}})
    (what, words), *more = lines(next_steps(data)).items()
    assert (
        what == "train on it" and words[2:] == ["stage=sft", f"+stage.inputs.data.folder={tmp_path}/it's"] and not more
    )
    monkeypatch.setattr(sys, "argv", ["r1 train", "stage=sample"])
    assert lines(next_steps(data))["train on it"][:3] == ["r1", "train", "stage=sft"]
    for stage in ("reward_model", "compare", "grpo"):
        assert next_steps(store.Artefact(tmp_path / "x", stage, "0" * 64, complete=True)) == ""


def test_the_verdict_of_a_finished_run(tmp_path: Path) -> None:
    """Judged by its files; silent without curves; a folder that cannot be reviewed is told, and ends nothing."""
    made = store.Artefact(write_run(tmp_path / "a", PRETRAINING, final={}), "pretrain", "0" * 64, complete=True)
    assert verdict(made) == "verdict: healthy: no rule is broken (there is no band for these settings)"
    commands, last = ending(made).split("\n\n")
    assert commands == next_steps(made) and last == verdict(made)
    (made.folder / "tensorboard" / "metrics.csv").unlink()
    assert verdict(made) == "" and ending(made) == next_steps(made) == ""
    gone = store.Artefact(tmp_path / "b", "pretrain", "0" * 64, complete=True)
    assert verdict(gone).startswith("verdict: none, the run's files cannot be reviewed (run=")
