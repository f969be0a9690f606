"""The label of a run: stage, experiment, seed; whatever stands in its folder, it is one short word."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.artefacts.run_label import EXPERIMENT, experiment_of, label, label_of, note_experiment


@pytest.mark.parametrize(
    ("folder", "experiment", "name", "expected"),
    [
        ("grpo-tiny-arithmetic-5f0d25f395", "r1_zero_tiny", None, "grpo-r1_zero_tiny-seed3"),
        ("grpo-tiny-arithmetic-5f0d25f395-2", None, None, "grpo-tiny-arithmetic-seed3"),
        ("grpo-first-try-5f0d25f395", "r1_zero_tiny", "first-try", "grpo-r1_zero_tiny-first-try-seed3"),
        ("grpo-first-try-5f0d25f395", None, "first-try", "grpo-first-try-seed3"),
        ("grpo-abcdefabcd", None, None, "grpo-seed3"),  # the ten digits are all of its name
    ],
)
def test_a_label_says_stage_experiment_and_seed(
    tmp_path: Path, folder: str, experiment: str | None, name: str | None, expected: str
) -> None:
    assert label(folder, experiment, name, 3) == expected
    run = tmp_path / folder
    run.mkdir()
    (run / "config.yaml").write_text(f"seed: 3\nname: {name or 'null'}\n")
    note_experiment(run, experiment)
    assert label_of(run) == expected


def test_the_experiment_is_noted_once(tmp_path: Path) -> None:
    assert experiment_of(tmp_path) is None
    note_experiment(tmp_path, None)
    assert not list(tmp_path.iterdir())
    note_experiment(tmp_path, "first")
    note_experiment(tmp_path, "second")
    assert experiment_of(tmp_path) == "first"


@pytest.mark.parametrize("text", ["", "../..", "a b", "<script>", "x" * 101, "a/b", "\x1b[31m"])
def test_what_is_no_name_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / EXPERIMENT).write_text(text)
    assert experiment_of(tmp_path) is None


@pytest.mark.parametrize("text", ["", "seed: x", "- 1", "seed: [", "name: a", "model:\n  seed: 1", "[" * 100_000])
def test_without_a_readable_configuration_the_folder_names_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert label_of(tmp_path) == tmp_path.name


def test_a_name_that_is_none_is_left_out(tmp_path: Path) -> None:
    run = tmp_path / "grpo-tiny-arithmetic-5f0d25f395"
    run.mkdir()
    note_experiment(run, "r1_zero_tiny")
    for name in ("null", "../x", "<b>"):
        (run / "config.yaml").write_text(f"seed: 12\nname: {name}\n")
        assert label_of(run) == "grpo-r1_zero_tiny-seed12"
