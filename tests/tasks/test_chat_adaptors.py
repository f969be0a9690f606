"""Rows of TRL and verl as their documentation has them, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.tasks.chat_adaptors import TRL, Verl
from r1_lightning.tasks.dataset_task import DatasetTask
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.rows import Rows
from r1_lightning.tasks.turns import SYSTEM
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem

USER = {"role": "user", "content": " What is 2+3? "}
SYSTEM_MESSAGE = {"role": "system", "content": "Be brief."}
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"split": "train", "index": 7, "answer": "2+3=5 #### 5", "question": "What is 2+3?"},
}


def made(adaptor: Any, values: dict[str, Any]) -> Problem:
    return adaptor.to_problem(Row(values, "file, row 1"))


@pytest.mark.parametrize("prompt", ["What is 2+3?", [USER], [SYSTEM_MESSAGE, USER]], ids=["text", "messages", "system"])
def test_a_prompt_is_text_or_messages(prompt: Any) -> None:
    problem = made(TRL(), {"prompt": prompt, "answer": "5"})
    has_system = len(prompt) == 2
    opening = "Be brief.\n\n" if has_system else ""
    assert (problem.question, problem.answer, problem.language) == (f"{opening}What is 2+3?", "5", "en")
    assert problem.metadata == ({SYSTEM: "Be brief."} if has_system else {})
    assert problem.problem_id == made(TRL(), {"prompt": "what is  2+3?", "answer": "5"}).problem_id
    assert made(TRL(system="leave_out"), {"prompt": prompt, "answer": "5"}).question == "What is 2+3?"


def test_a_prompt_of_several_turns_ends_with_the_question() -> None:
    """The reply is shown without its thinking, and the system message opens the first question."""
    reply = {"role": "assistant", "content": "<think>1+1</think> 2", "reasoning_content": None}
    prompt = [SYSTEM_MESSAGE, {"role": "user", "content": "1+1?"}, reply, USER]
    for problem in (made(TRL(), {"prompt": prompt, "answer": "5"}), made(Verl(), {**VERL, "prompt": prompt})):
        assert problem.question == "What is 2+3?" and problem.earlier == (("Be brief.\n\n1+1?", "2"),)
    alone = made(TRL(), {"prompt": [USER], "answer": "5"})
    assert alone.problem_id != made(TRL(), {"prompt": prompt, "answer": "5"}).problem_id


COLUMNS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"task_type": "math", "difficulty": "hard"}, {"task_type": "math", "difficulty": "hard"}),
    ({"difficulty": 0.25, "index": 7, "is_hard": True}, {"difficulty": "0.25", "index": "7", "is_hard": "true"}),
    ({"tags": ["a", "ü"], "info": {"k": 1}, "nothing": None, "empty": ""}, {"tags": '["a", "ü"]', "info": '{"k": 1}'}),
    ({"tests": "x", "domain": "algebra"}, {"column_tests": "x", "column_domain": "algebra"}),
    ({"system": "y", "needs": "n", "steps": "s"}, {"column_system": "y", "column_needs": "n", "column_steps": "s"}),
    ({"long": "x" * 10_001, "short": "x"}, {"short": "x", "columns_left_out": '["long"]'}),
]


@pytest.mark.parametrize(("columns", "metadata"), COLUMNS)
def test_other_columns_reach_the_reward(columns: dict[str, Any], metadata: dict[str, str]) -> None:
    assert made(TRL(), {"prompt": "q", "answer": "5", **columns}).metadata == metadata
    assert made(Verl(), {**VERL, **columns, "extra_info": None}).metadata == {
        **metadata,
        "ability": "math",
        "data_source": "openai/gsm8k",
    }


DAPO = {
    "data_source": "math_dapo",
    "prompt": [{"role": "user", "content": "Solve the following math problem step by step. What is 30+4?"}],
    "ability": "MATH",
    "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "9a9b6eb4-a1cb-49d1-8c1e-62eaf2f74079"},
}


@pytest.mark.parametrize(
    "truth", ["34", ["34"], '["34"]', 34, [34], [" 34 ", "34"], ' ["34"]'], ids=lambda truth: repr(truth)
)
def test_dapo_and_skywork_as_they_are_published(truth: Any) -> None:
    row = {**DAPO, "reward_model": {**DAPO["reward_model"], "ground_truth": truth}}
    problem = made(Verl(), row)
    assert problem.answer == "34" and problem.metadata["data_source"] == "math_dapo"
    assert problem.metadata["index"] == DAPO["extra_info"]["index"] and problem.metadata["ability"] == "MATH"


@pytest.mark.parametrize("text", ["[1, 2]", "[0, 1)", "{1, 2}", '["unclosed'])
def test_an_answer_that_only_looks_like_a_list_stays_as_it_is(text: str) -> None:
    row = {**DAPO, "reward_model": {"style": "rule", "ground_truth": text}}
    assert made(Verl(), row).answer == text


@pytest.mark.parametrize(
    ("form", "column", "answer"),
    [
        ("plain", " 1/2 ", "1/2"),
        ("plain", 5, "5"),
        ("boxed", "So $\\boxed{\\frac12}$.", "\\frac12"),
        ("hashes", "2+3=5\n#### 5", "5"),
    ],
)
def test_the_answer_stands_in_a_column_of_any_name(form: Any, column: Any, answer: str) -> None:
    assert made(TRL("solution", form), {"prompt": "q", "solution": column}).answer == answer


def test_the_language_is_that_of_the_question_or_given() -> None:
    assert made(TRL(), {"prompt": "二加三等于多少？", "answer": "5"}).language == "zh"
    assert made(TRL(), {"prompt": "2+3=?", "answer": "5"}).language == "en"  # no words at all
    assert made(TRL(language="zh"), {"prompt": "2+3=?", "answer": "5"}).language == "zh"
    assert made(Verl(language="zh"), VERL).language == "zh"


def test_a_row_of_verl() -> None:
    problem = made(Verl(), {**VERL, "prompt": [SYSTEM_MESSAGE, USER]})
    assert (problem.question, problem.answer) == ("Be brief.\n\nWhat is 2+3?", "5")
    extra = {"split": "train", "index": "7", "answer": "2+3=5 #### 5", "question": "What is 2+3?"}
    assert problem.metadata == {"data_source": "openai/gsm8k", "ability": "math", **extra, SYSTEM: "Be brief."}
    assert made(Verl(), {**VERL, "extra_info": None}).metadata == {"data_source": "openai/gsm8k", "ability": "math"}
    assert AccuracyReward()(problem, Completion("<answer>5</answer>", 3, True)).score == 1.0


def test_verls_parquet(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([VERL, {**VERL, "prompt": [{**USER, "content": "What is 1+1?"}]}]), tmp_path / "x.parquet"
    )
    task = DatasetTask(Verl(), test=Rows(str(tmp_path / "x.parquet")))
    assert [problem.question for problem in task.held_out_problems(2)] == ["What is 2+3?", "What is 1+1?"]


ASSISTANT = {"role": "assistant", "content": "4"}
CALL = {"role": "assistant", "content": "Let me see.", "tool_calls": [{"function": {"name": "f"}}]}
IN_TURNS = "messages of user and assistant in turns, the user first"
BAD = {
    "a reply at the end": (TRL(), {"prompt": [USER, ASSISTANT], "answer": "5"}, r"prompt=\['user', 'assistant'\]"),
    "two questions": (TRL(), {"prompt": [USER, USER], "answer": "5"}, IN_TURNS),
    "no user": (TRL(), {"prompt": [SYSTEM_MESSAGE], "answer": "5"}, IN_TURNS),
    "empty": (TRL(), {"prompt": [], "answer": "5"}, IN_TURNS),
    "system later": (TRL(), {"prompt": [USER, SYSTEM_MESSAGE], "answer": "5"}, IN_TURNS),
    "a call": (TRL(), {"prompt": [USER, CALL, USER], "answer": "5"}, r"prompt\[1\]: tool_calls=.* calls of tools"),
    "tools": (TRL(), {"prompt": "q", "answer": "5", "tools": [{"name": "f"}]}, "tools=.* calls of tools are not read"),
    "a tool's turn": (TRL(), {"prompt": [{"role": "tool", "content": "x"}], "answer": "5"}, "role='tool'"),
    "two references": (TRL(), {"prompt": "q", "answer": ["1", "2"]}, "one reference answer is needed"),
    "no reference": (TRL(), {"prompt": "q", "answer": []}, "one reference answer is needed"),
    "deep reference": (TRL(), {"prompt": "q", "answer": [["1"]]}, "answer="),
    "no messages": (TRL(), {"prompt": ["q"], "answer": "5"}, "a list of messages with role and content"),
    "number": (TRL(), {"prompt": 5, "answer": "5"}, "prompt=5"),
    "no role": (TRL(), {"prompt": [{"content": "q"}], "answer": "5"}, r"prompt\[0\]: the field 'role' is missing"),
    "blank": (TRL(), {"prompt": [{"role": "user", "content": " "}], "answer": "5"}, r"prompt\[0\]: content=' '"),
    "pictures": (TRL(), {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "answer": "5"}, "type='image'"),
    "no answer": (TRL(), {"prompt": "q"}, "the field 'answer' is missing"),
    "no box": (TRL(answer_form="boxed"), {"prompt": "q", "answer": "5"}, "answer='' is not allowed"),
    "no hashes": (TRL(answer_form="hashes"), {"prompt": "q", "answer": "5"}, "answer='' is not allowed"),
    "style of a model": (Verl(), {**VERL, "reward_model": {"style": "ruler", "ground_truth": "5"}}, "style='ruler'"),
    "style of none": (Verl(), {**VERL, "reward_model": {"style": None, "ground_truth": "5"}}, "style=None"),
    "a model judges": (Verl(), {**VERL, "reward_model": {"style": "model", "ground_truth": "5"}}, "style='model'"),
    "no style": (Verl(), {**VERL, "reward_model": {"ground_truth": "5"}}, "reward_model: the field 'style' is missing"),
    "tests": (Verl(), {**VERL, "reward_model": {"style": "rule", "ground_truth": {"inputs": []}}}, "ground_truth="),
    "no reward": (Verl(), {**VERL, "reward_model": None}, "reward_model=None"),
    "no source": (Verl(), {**VERL, "data_source": None}, "data_source=None"),
}


@pytest.mark.parametrize(("adaptor", "values", "message"), BAD.values(), ids=BAD)
def test_a_broken_row_is_named(adaptor: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        made(adaptor, values)
    assert str(error.value).startswith("file, row 1") and "\n" not in str(error.value)


def test_bad_arguments_are_named() -> None:
    for arguments in ({"answer_field": ""}, {"answer_form": "x"}, {"language": "fr"}, {"system": "hide"}):
        with pytest.raises(InvalidInput, match=f"{next(iter(arguments))}="):
            TRL(**arguments)
    with pytest.raises(InvalidInput, match="language='fr'"):
        Verl(language="fr")
