"""`stage=compare` from the command line: one measuring per model, a table, rows, and no model measured twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from r1_lightning.artefacts import data_set, store
from r1_lightning.artefacts.hf_folder import import_model
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.functional.intervals import Interval
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.stages import compare as comparing
from r1_lightning.run.stages.kinds import run_stage
from r1_lightning.text.chat_template import INSTRUCTIONS
from r1_lightning.types.processes import Processes
from tests.run.conftest import REAL_CONFIGS, Command, Outcome
from tests.support.hf_folders import dense_folder

Compare = Callable[..., Outcome]


def _artefact(root: Path, digit: str) -> Path:
    made = store.create(root, "grpo", "tiny", "sums", digit * 64)
    store.save_weights(nn.Linear(2, 2), made.weights_path)
    return store.complete(made, "c0ffee", {}, {}, {}).folder


class RankZeroReads(Processes):
    """One process, of which the test knows what only rank 0 of several would do."""

    is_asked = False

    def from_main(self, make: Callable[[], Any]) -> Any:
        RankZeroReads.is_asked = True
        try:
            return make()
        finally:
            RankZeroReads.is_asked = False


@pytest.fixture
def compare(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """`compare(...)` compares the models `one` and `two`, whose measures are made up: 0.25 and 0.5."""
    measured: list[str] = []
    folders = {"one": _artefact(tmp_path / "given", "a"), "two": _artefact(tmp_path / "given", "b")}

    def measure(name: str, artefact: store.Artefact, *rest: object) -> dict[str, Measure]:
        measured.append(name)
        value = 0.25 if artefact.fingerprint.startswith("a") else 0.5
        return {"pass_at_1": Measure(value, Interval(value, value - 0.125, value + 0.125))}

    monkeypatch.setattr(comparing, "_measure", measure)
    monkeypatch.setattr(comparing, "processes_now", RankZeroReads)
    read = comparing._read

    def read_by_rank_0(path: Path) -> dict[str, Measure]:
        assert RankZeroReads.is_asked, "another machine may not see the file yet"
        return read(path)

    monkeypatch.setattr(comparing, "_read", read_by_rank_0)

    def run(*more: str) -> Outcome:
        measured.clear()
        inputs = [f"+stage.inputs.{name}={{folder: {folder}}}" for name, folder in folders.items()]
        given = ["stage=compare", *inputs, f"paths.root={tmp_path / 'runs'}", "trainer.threads=1", *more]
        return command(*given, recorder=run_stage, configs=REAL_CONFIGS)

    run.measured = measured  # type: ignore[attr-defined]
    return run


def _folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").glob("compare-*")
    return folder


@pytest.mark.usefixtures("isolated")
def test_the_table_and_the_rows(compare: Compare, tmp_path: Path) -> None:
    done = compare()
    assert done.code == 0, done.err
    assert "pass_at_1  0.250 [0.125, 0.375]  0.500 [0.375, 0.625]" in done.out
    artefact = store.open_artefact(_folder(tmp_path))
    assert artefact.metrics == {"compare/one/pass_at_1": 0.25, "compare/two/pass_at_1": 0.5}
    assert list(data_set.read_lines(data_set.part_path(artefact.folder, 0)))[1] == {
        "model": "two",
        "fingerprint": "b" * 10,
        "measure": "pass_at_1",
        "value": 0.5,
        "low": 0.375,
        "high": 0.625,
    }
    assert {role: record["stage"] for role, record in artefact.inputs.items()} == {"one": "grpo", "two": "grpo"}


@pytest.mark.usefixtures("isolated")
def test_after_a_kill_only_the_rest_is_measured(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = comparing._measure
    broken = {"two"}

    def dying(name: str, *rest: object) -> dict[str, Measure]:
        if name in broken:
            raise KeyboardInterrupt
        return made(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(comparing, "_measure", dying)
    assert compare().code == 130 and not store.is_complete(_folder(tmp_path))
    broken.clear()
    assert compare().code == 0
    assert compare.measured == ["two"], "the first was measured before the kill"  # type: ignore[attr-defined]
    assert "0.250 [0.125, 0.375]  0.500" in (_folder(tmp_path) / store.TABLE).read_text(encoding="utf-8")


@pytest.mark.usefixtures("isolated")
def test_nothing_to_compare_is_said_and_leaves_no_folder(command: Command, tmp_path: Path) -> None:
    done = command("stage=compare", f"paths.root={tmp_path / 'runs'}", recorder=run_stage, configs=REAL_CONFIGS)
    assert done.code == 2 and "nothing to compare: name models" in done.err
    assert list((tmp_path / "runs").glob("compare-*")) == []


def test_a_published_checkpoint_is_measured_in_the_task_s_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an artefact nor asked for its configuration; the stage's task says how it is asked."""
    base = import_model(dense_folder(tmp_path / "qwen", "qwen2"))
    small = ["stage.evaluation.problems=2", "stage.evaluation.samples=1", "stage.evaluation.max_new_tokens=3"]
    small.append("+task.instruction=boxed")
    with composing():
        config = compose_stage(["stage=compare", f"+stage.inputs.qwen={{folder: {base.folder}}}", *small]).config
    asked = []
    monkeypatch.setattr(comparing, "check_prompt_lengths", lambda evaluator, _: asked.append(evaluator.template))
    metrics = comparing.run_comparison(config, "compare", tmp_path, {"qwen": base})
    assert [template.instruction for template in asked] == [INSTRUCTIONS["boxed"]]
    assert 0 <= metrics["compare/qwen/completion_tokens_mean"] <= 3
    assert "qwen" in (tmp_path / store.TABLE).read_text()


@pytest.mark.usefixtures("isolated")
def test_a_measure_of_no_sample_has_no_number_and_ends_nothing(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a handful of problems none may be a program, and then their share that is right is none: null in files."""
    none = Measure(math.nan, Interval(math.nan, math.nan, math.nan))
    monkeypatch.setattr(comparing, "_measure", lambda *given: {"pass_at_1_programs": none})
    done = compare()
    assert done.code == 0, done.err
    assert "pass_at_1_programs  nan [nan, nan]" in done.out
    artefact = store.open_artefact(_folder(tmp_path))
    assert artefact.metrics == {"compare/one/pass_at_1_programs": None, "compare/two/pass_at_1_programs": None}
    row = next(data_set.read_lines(data_set.part_path(artefact.folder, 0)))
    assert (row["value"], row["low"], row["high"]) == (None, None, None)
