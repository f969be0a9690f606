"""Experiments that are made from experiments: the tree of what is needed, the order of making, the table at the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.work import WORK
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.graph.node import Node
from r1_lightning.run.graph.stage_tree import measured_stages, stage_table, time_table
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
    lines = made.out.splitlines()
    start = lines.index("| held out | pretrain | first | second |")
    assert lines[start + 1 : start + 3] == ["|---|---|---|---|", "| pass_at_1 | 0.500 | 0.500 | 0.500 |"]
    times = lines[lines.index("| stage | minutes | share |") + 2 :]
    assert [line.split(" |")[0] for line in times] == ["| pretrain", "| first", "| second", "| together"]


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
    assert stage_table({}) == ""


def planned(root: Path, name: str, digit: str, work: str = "", found: float | None = None, **inputs: Node) -> Node:
    """A node whose folder holds how long it took, and whose artefact has one held-out measure; neither, where not given."""
    fingerprint = digit * 64
    if work:
        folder = store.create(root, name, "m", "t", fingerprint).folder
        store.write_text(folder / WORK, work)
        if found is not None:
            store.write_text(folder / store.WEIGHTS, "")
            artefact = Artefact(folder, name, fingerprint)
            store.complete(artefact, "c0ffee", {}, {}, {"eval/right": found, "train/loss": 9.0})
    return Node(StageConfig(name, {}, OmegaConf.create({"paths": {"root": str(root)}}), "train"), fingerprint, inputs)


def test_the_times_by_hand(tmp_path: Path) -> None:
    """90 s and 270 s are 25 % and 75 % of 6 minutes; the second had a process that was killed."""
    base = planned(tmp_path, "pretrain", "a", "begin\nend 90.0\n")
    unmade = planned(tmp_path, "sft", "c", base=base)
    last = planned(tmp_path, "grpo", "b", "begin\nbegin\nend 270.0\n", base=base, unmade=unmade)
    assert time_table(last).splitlines() == [
        "| stage | minutes | share |",
        "|---|---|---|",
        "| pretrain | 1.5 | 25 % |",
        "| grpo | over 4.5 | 75 % |",
        "| together | over 6.0 | 100 % |",
    ]
    assert time_table(planned(tmp_path, "sample", "d")) == ""


def test_stages_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """A student and its teacher begin with different base models: 1 + 10 + 10 + 1 minutes are 22, in four rows and columns.

    What is needed twice is one stage still, and a stage keeps its name also where the first of that name was not made.
    """
    small = planned(tmp_path, "pretrain", "a", "begin\nend 60.0\n", 0.125)
    large = planned(tmp_path, "pretrain", "b", "begin\nend 600.0\n", 0.25)
    teacher = planned(tmp_path, "grpo", "c", "begin\nend 600.0\n", 0.75, base=large)
    student = planned(
        tmp_path, "distill", "d", "begin\nend 60.0\n", 0.5, base=small, teacher=teacher, again=small, large=large
    )
    assert [line.split(" | ")[:2] for line in time_table(student).splitlines()[2:]] == [
        ["| pretrain", "1.0"],
        ["| pretrain bbbbbbbbbb", "10.0"],
        ["| grpo", "10.0"],
        ["| distill", "1.0"],
        ["| together", "22.0"],
    ]
    values = {"pretrain": 0.125, "pretrain bbbbbbbbbb": 0.25, "grpo": 0.75, "distill": 0.5}
    assert measured_stages(student) == {name: {"right": value} for name, value in values.items()}
    assert list(measured_stages(student)) == list(values), "in the order of making"
    without = planned(tmp_path, "distill", "e", base=planned(tmp_path, "pretrain", "f"), teacher=teacher)
    assert list(measured_stages(without)) == ["pretrain bbbbbbbbbb", "grpo"]
