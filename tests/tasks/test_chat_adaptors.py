"""Rows of TRL and verl as their documentation has them, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.tasks.chat_adaptors import SYSTEM, TRL, Verl
from r1_lightning.tasks.dataset_task import DatasetTask
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.rows import Rows
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
    assert (problem.question, problem.answer, problem.language) == ("What is 2+3?", "5", "en")
    assert problem.metadata == ({SYSTEM: "Be brief."} if len(prompt) == 2 else {})


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
    assert (problem.question, problem.answer) == ("What is 2+3?", "5")
    assert problem.metadata == {"data_source": "openai/gsm8k", "split": "train", "index": "7", SYSTEM: "Be brief."}
    assert made(Verl(), {**VERL, "extra_info": None}).metadata == {"data_source": "openai/gsm8k"}
    assert AccuracyReward()(problem, Completion("<answer>5</answer>", 3, True)).score == 1.0


def test_verls_parquet(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([VERL, {**VERL, "prompt": [{**USER, "content": "What is 1+1?"}]}]), tmp_path / "x.parquet"
    )
    task = DatasetTask(Verl(), test=Rows(str(tmp_path / "x.parquet")))
    assert [problem.question for problem in task.held_out_problems(2)] == ["What is 2+3?", "What is 1+1?"]


ASSISTANT = {"role": "assistant", "content": "4"}
BAD = {
    "several turns": (
        TRL(),
        {"prompt": [USER, ASSISTANT, USER], "answer": "5"},
        r"prompt=\['user', 'assistant', 'user'\]",
    ),
    "no user": (TRL(), {"prompt": [SYSTEM_MESSAGE], "answer": "5"}, "one message of the user is needed"),
    "empty": (TRL(), {"prompt": [], "answer": "5"}, "one message of the user is needed"),
    "no messages": (TRL(), {"prompt": ["q"], "answer": "5"}, "a list of messages with role and content"),
    "number": (TRL(), {"prompt": 5, "answer": "5"}, "prompt=5"),
    "no role": (TRL(), {"prompt": [{"content": "q"}], "answer": "5"}, r"prompt\[0\]: the field 'role' is missing"),
    "blank": (TRL(), {"prompt": [{"role": "user", "content": " "}], "answer": "5"}, r"prompt\[0\]: content=' '"),
    "pictures": (TRL(), {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "answer": "5"}, "content="),
    "no answer": (TRL(), {"prompt": "q"}, "the field 'answer' is missing"),
    "no box": (TRL(answer_form="boxed"), {"prompt": "q", "answer": "5"}, "answer='' is not allowed"),
    "no hashes": (TRL(answer_form="hashes"), {"prompt": "q", "answer": "5"}, "answer='' is not allowed"),
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
    for arguments in ({"answer_field": ""}, {"answer_form": "x"}, {"language": "fr"}):
        with pytest.raises(InvalidInput, match=f"{next(iter(arguments))}="):
            TRL(**arguments)
    with pytest.raises(InvalidInput, match="language='fr'"):
        Verl(language="fr")
