"""Experiments that are made from experiments: the tree of what is needed, the order of making, the table at the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r1_lightning.run.stage_tree import stage_table
from tests.run.conftest import Command
from tests.run.fakes import Recorder

LINE = re.compile(r"^( *(?:\w+: )?\w+) [0-9a-f]{10} (to be made|there|to be resumed)", re.MULTILINE)


def tree_of(out: str) -> list[str]:
    """The lines of the tree without fingerprints and folders."""
    return [f"{name} {status}" for name, status in LINE.findall(out)]


def test_an_experiment_is_made_from_an_experiment_of_the_same_stage(command: Command) -> None:
    made = command("experiment=second")
    assert made.code == 0, made.err
    assert made.recorder.stages == ["pretrain", "grpo", "grpo"]
    assert [config.stage.max_steps for *_, config in made.recorder.calls[1:]] == [11, 12]
    assert tree_of(made.out) == ["second to be made", "  base: first to be made", "    base: pretrain to be made"]
    assert "base: missing, building it first (stage grpo, experiment first)" in made.out
    again = command("experiment=second")
    assert again.recorder.stages == []
    assert tree_of(again.out)[:2] == ["second there", "  base: first there"]


def test_a_stage_typed_alone_is_the_same_artefact(command: Command) -> None:
    """What an experiment is called does not count, only what it says."""
    command("experiment=second")
    assert command("experiment=first").recorder.stages == []
    assert command("stage=grpo", "stage.max_steps=11").recorder.stages == []


def test_a_command_that_was_broken_off_shows_what_it_will_go_on_with(command: Command) -> None:
    recorder = Recorder()
    command("experiment=first", recorder=recorder)
    command("experiment=second", recorder=Recorder(faults=[KeyboardInterrupt()]))
    resumed = command("experiment=second")
    assert tree_of(resumed.out) == ["second to be resumed", "  base: first there", "    base: pretrain there"]
    assert resumed.recorder.stages == ["grpo"]


def test_the_table_has_a_column_for_each_stage_that_was_measured(command: Command) -> None:
    made = command("experiment=second")
    table = made.out.splitlines()[-3:]
    assert table == [
        "| held out | pretrain | first | second |",
        "|---|---|---|---|",
        "| pass_at_1 | 0.500 | 0.500 | 0.500 |",
    ]


def test_an_experiment_that_needs_itself_is_refused(command: Command) -> None:
    error = command("experiment=loop").error
    assert error == "stage.inputs.again='loop' is not allowed: it would need itself (loop <- second)"


@pytest.mark.parametrize(
    "node", ["{experiment: first, stage: grpo}", "{overrides: []}", "{experiment: 3}", "{experiment: first, when: now}"]
)
def test_an_input_says_one_thing(command: Command, node: str) -> None:
    error = command("stage=grpo", f"stage.inputs.base={node}").error
    assert error.startswith("stage.inputs.base=") and "{experiment: NAME, overrides: [...]}" in error


def test_an_unknown_experiment_is_refused_by_name(command: Command, tmp_path: Path) -> None:
    error = command("stage=grpo", "stage.inputs.base={experiment: frist}").error
    assert "frist" in error and "first" in error


def test_the_table_by_hand() -> None:
    results = {"dev1": {"sums/pass_at_1": 0.25, "tokens": 31.04}, "dev2": {"sums/pass_at_1": 0.5}}
    assert stage_table(results).splitlines() == [
        "| held out | dev1 | dev2 |",
        "|---|---|---|",
        "| sums/pass_at_1 | 0.250 | 0.500 |",
        "| tokens | 31.0 | - |",
    ]
