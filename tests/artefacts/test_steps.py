"""How far a run is, whatever the moment at which its file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.artefacts.steps import last_row, last_step


def metrics(folder: Path, text: str) -> None:
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "tensorboard" / "metrics.csv").write_text(text)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("a,step\n0.1,0\n0.2,1\n", 2),
        ("step,a\n0,1\n1,1\n2,", 3),  # the last value is not written yet, its row counts
        ("step,a\n0,1\n1,1\n2", 2),  # half a row
        ("step,a\n", None),
        ("", None),
        ("a\n1\n", None),
        ("step,a\n" + "".join(f"{n},{'9' * 40}\n" for n in range(5000)), 5000),
    ],
)
def test_the_last_step_that_was_logged(tmp_path: Path, text: str, step: int | None) -> None:
    assert last_step(tmp_path) is None
    metrics(tmp_path, text)
    assert last_step(tmp_path) == step


def test_the_last_row_by_name(tmp_path: Path) -> None:
    assert last_row(tmp_path) == {}
    metrics(tmp_path, "step,train/loss\n0,1.5\n1,0.5\n")
    assert last_row(tmp_path) == {"step": "1", "train/loss": "0.5"}
