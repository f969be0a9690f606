"""The report on a published checkpoint: problems, table and student by hand. The runs themselves need the checkpoint's files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from r1_lightning.artefacts.store import Artefact
from r1_lightning.types.errors import InvalidInput
from tests.reports.recipes import recipe_module

report = recipe_module("real_checkpoint")


def row(part: str, seed: int, model: str, task: str, measure: str, value: float) -> dict[str, str]:
    named = {"checkpoint": "c", "part": part, "seed": str(seed), "model": model, "task": task, "measure": measure}
    return {**named, "value": str(value), "low": "", "high": "", "fingerprint": "f", "commit": "c"}


def test_no_held_out_problem_is_a_training_problem_with_its_numbers_exchanged() -> None:
    problems = report.arithmetic()
    # Products of 2 to 9 with 1 to 9 in either order, 36 unordered pairs of which 8 are squares: 2 x 36 - 8 = 64. Sums of 1 to 9:
    # 81. Differences of 1 to 9 that are not negative: 45, of which those of a number with itself are 9. Together 190.
    assert {name: len(rows) for name, rows in problems.items()} == {"train": 132, "test": 58}

    def facts(rows: list[dict[str, str]]) -> set[tuple[str, frozenset[str]]]:
        words = [item["question"].removeprefix("What is ").rstrip("?").split() for item in rows]
        return {(sign, frozenset((left, right))) for left, sign, right in words}

    assert not facts(problems["train"]) & facts(problems["test"])
    asked = {item["question"]: item["answer"] for rows in problems.values() for item in rows}
    assert (asked["What is 7 x 8?"], asked["What is 9 - 4?"], asked["What is 6 + 7?"]) == ("56", "5", "13")


def test_the_table_by_hand() -> None:
    rows = [row("before", 0, "checkpoint", "GSM8K", "format_rate", 0.0)]
    rows += [row("sft", 0, "sft", "GSM8K", "format_rate", 0.5), row("sft", 1, "sft", "GSM8K", "format_rate", 0.75)]
    rows += [
        row("grpo", 1, "checkpoint", "arithmetic", "pass_at_1_lenient", 0.25),
        row("grpo", 1, "grpo", "arithmetic", "pass_at_1_lenient", 0.125),
        row("grpo", 1, "grpo", "", "minutes", 7.04),
    ]
    table = report.render(rows)
    assert "| SFT teaches the form | holds (+0.500) | holds (+0.750) |" in table
    assert "| GRPO's model is right more often than the checkpoint | not run | DOES NOT HOLD (-0.125) |" in table
    assert "| well formed | 0.000 [0.000, 0.000] | 0.625 [0.500, 0.750] |" in table
    assert "| grpo | not run | 7.0 |" in table


def test_what_a_stage_measured_is_named_by_model() -> None:
    metrics = {f"{of}/dataset/{name}": 0.5 for of in ("eval", "eval_base") for name in report.SHOWN}
    artefact = Artefact(Path("x"), "grpo", "0" * 64, metrics={**metrics, "eval/dataset/pass_at_1": 0.25})
    rows: list[dict[str, Any]] = report.measured(artefact, {"eval_base": "checkpoint", "eval": "grpo"})
    found = {(item["model"], item["measure"]): item["value"] for item in rows}
    assert (found["grpo", "pass_at_1"], found["checkpoint", "pass_at_1"]) == ("0.25", "0.5")
    assert found["grpo", "minutes"] == ""  # nothing was recorded there


def test_the_student_has_the_layers_that_are_not_dropped(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 16,
    }
    teacher = LlamaForCausalLM(LlamaConfig(num_hidden_layers=30, **sizes))
    teacher.save_pretrained(tmp_path / "teacher")
    (tmp_path / "teacher" / "tokenizer.json").write_text("{}", encoding="utf-8")
    report.write_student(tmp_path / "teacher", tmp_path / "student")
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert len(student.model.layers) == student.config.num_hidden_layers == 24
    kept, dropped = student.model.layers[20].mlp.up_proj.weight, teacher.model.layers[26].mlp.up_proj.weight
    assert kept.equal(dropped) and (tmp_path / "student" / "tokenizer.json").exists()


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="--checkpoint='nobody' is not allowed: checkpoints/nobody must be a folder"):
        report.overrides("nobody", "sft", 0)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_answers_once_and_every_seed_has_both_parts() -> None:
    found = list(report.runs(Namespace(checkpoint="c", seeds=[3, 5])))
    assert found == [("c", "before", 0), *(("c", part, seed) for part in ("grpo", "sft") for seed in (3, 5))]
