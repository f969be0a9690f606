"""Rows of published data sets with answers, written by hand in their schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.tasks.dataset_task import DatasetTask
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.published import AnyRow
from r1_lightning.tasks.rows import Rows
from r1_lightning.types.errors import InvalidInput

USER = {"role": "user", "content": "What is 30+4?"}
VERL = {"data_source": "math_dapo", "prompt": [USER], "ability": "MATH", "extra_info": {"index": "a-1"}}

# Name -> the row, what it is taken for, a part of the metadata. The answer is 34 everywhere.
PUBLISHED: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "DAPO-Math-17k": (
        {**VERL, "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"}},
        "reward_model",
        {"index": "a-1", "ability": "MATH", "data_source": "math_dapo"},
    ),
    "Skywork-OR1": (
        {
            **VERL,
            "reward_model": {"style": "rule", "ground_truth": '["34"]'},
            "extra_info": {"index": 3, "model_difficulty": {"DeepSeek-R1-Distill-Qwen-7B": 5}},
        },
        "reward_model",
        {"index": "3", "model_difficulty": '{"DeepSeek-R1-Distill-Qwen-7B": 5}'},
    ),
    "NuminaMath-1.5": (
        {"problem": "What is 30+4?", "solution": "...", "answer": "34", "problem_type": "Algebra", "synthetic": False},
        "problem and answer",
        {"problem_type": "Algebra", "synthetic": "false"},
    ),
    "DeepScaleR": (
        {"problem": "What is 30+4?", "answer": "34", "solution": "30+4=34"},
        "problem and answer",
        {"solution": "30+4=34"},
    ),
    "Big-Math": (
        {
            "problem": "What is 30+4?",
            "answer": "34",
            "source": "orca_math",
            "domain": ["Mathematics -> Algebra"],
            "llama8b_solve_rate": 0.5,
        },
        "problem and answer",
        {"llama8b_solve_rate": "0.5", "column_domain": '["Mathematics -> Algebra"]'},
    ),
    "OpenR1-Math": (
        {"problem": "What is 30+4?", "answer": "34", "generations": ["a"], "messages": [USER], "uuid": "u"},
        "problem and answer",
        {"uuid": "u"},
    ),
    "OpenMathInstruct-2": (
        {"problem": "What is 30+4?", "generated_solution": "34", "expected_answer": "34", "problem_source": "math"},
        "problem and expected_answer",
        {"problem_source": "math"},
    ),
    "MATH": (
        {"problem": "What is 30+4?", "level": "Level 1", "type": "Algebra", "solution": "So $\\boxed{34}$."},
        "problem and solution",
        {"level": "Level 1", "type": "Algebra"},
    ),
    "MetaMath": (
        {"query": "What is 30+4?", "response": "30+4=34\n#### 34\nThe answer is: 34", "type": "GSM_SV"},
        "query and response",
        {"type": "GSM_SV"},
    ),
    "MetaMath without marks": (
        {"query": "What is 30+4?", "response": "30+4=34\nThe answer is: 34", "type": "MATH_SV"},
        "query and response",
        {"type": "MATH_SV"},
    ),
    "GSM8K": ({"question": "What is 30+4?", "answer": "30+4=34\n#### 34"}, "question and answer", {}),
    "LIMO": (
        {"question": "What is 30+4?", "solution": "long", "answer": "34"},
        "question and answer",
        {"solution": "long"},
    ),
    "s1K": (
        {"question": "What is 30+4?", "solution": "34", "cot_type": "math"},
        "question and solution",
        {"cot_type": "math"},
    ),
    "TRL": (
        {"prompt": [USER], "ground_truth": 34, "task_type": "sum", "difficulty": 1},
        "prompt and ground_truth",
        {"task_type": "sum", "difficulty": "1"},
    ),
    "Open-Reasoner-Zero": (
        {
            "conversations": [
                {"from": "human", "value": "What is 30+4?"},
                {"from": "assistant", "ground_truth": {"value": "34"}},
            ]
        },
        "conversations with ground_truth",
        {},
    ),
}


@pytest.mark.parametrize(("values", "name", "metadata"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_row(values: dict[str, Any], name: str, metadata: dict[str, str]) -> None:
    row = Row(values, "file, row 1")
    found = AnyRow().to_problem(row)
    assert found is not None and (found.question, found.answer, found.language) == ("What is 30+4?", "34", "en")
    assert metadata.items() <= found.metadata.items() and AnyRow().format_name(row) == name


def test_a_file_of_bare_conversations(tmp_path: Path) -> None:
    """As Open-Reasoner-Zero's file is: one array of arrays."""
    conversation = PUBLISHED["Open-Reasoner-Zero"][0]["conversations"]
    (tmp_path / "orz.json").write_text(json.dumps([conversation] * 3))
    task = DatasetTask(AnyRow(), Rows(str(tmp_path / "orz.json")), held_out=0)
    assert task.n_train == 3 and task.train_problem(0, 0).answer == "34"
    assert task.notes == [f"{tmp_path / 'orz.json'}: read as conversations with ground_truth (3)"]


@pytest.mark.parametrize("answer", [None, "", "proof", "notfound", "NULL", " Proof "])
def test_a_row_without_an_answer_is_left_out(answer: Any) -> None:
    assert AnyRow().to_problem(Row({"problem": "q", "answer": answer, "solution": "s"}, "x")) is None


def test_a_system_message_and_a_language() -> None:
    prompt = [{"role": "system", "content": "Be brief."}, USER]
    assert AnyRow().to_problem(Row({"prompt": prompt, "answer": "1"}, "x")).question == "Be brief.\n\nWhat is 30+4?"  # type: ignore[union-attr]
    made = AnyRow("zh", "leave_out").to_problem(Row({"prompt": prompt, "answer": "1"}, "x"))
    assert made is not None and (made.question, made.language) == ("What is 30+4?", "zh")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two questions": (
        {"prompt": "a", "question": "b", "answer": "1"},
        "prompt='a'.*question could be the question, too",
    ),
    "two answers": (
        {"problem": "a", "answer": "1", "expected_answer": "2"},
        "expected_answer='2'.*answer holds another one",
    ),
    "no question": ({"answer": "1"}, "the field 'problem' is missing .a row has reward_model, or one of problem"),
    "no answer": ({"problem": "a"}, "the field 'answer' is missing"),
    "empty question": ({"problem": "", "answer": "1"}, "problem='' is not allowed: one must be non-empty"),
    "a solution without a mark": (
        {"problem": "a", "solution": "we are done"},
        "no box, no #### and no 'The answer is'",
    ),
    "a conversation without an answer": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        "its last message must hold a ground_truth",
    ),
    "several references": ({"problem": "a", "answer": ["1", "2"]}, "one reference answer is needed"),
    "tools": ({"prompt": "a", "answer": "1", "tools": [{}]}, "calls of tools are not read"),
    "a model's judgement": ({**VERL, "reward_model": {"style": "model", "ground_truth": "1"}}, "style='model'"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_ambiguous_or_broken_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        AnyRow().to_problem(Row(values, "file, row 1"))
    assert str(refused.value).startswith("file, row 1") and "\n" not in str(refused.value)


def test_bad_settings_are_named() -> None:
    for arguments in ({"language": "fr"}, {"system": "hide"}):
        with pytest.raises(InvalidInput, match=f"{next(iter(arguments))}="):
            AnyRow(**arguments)  # type: ignore[arg-type]
