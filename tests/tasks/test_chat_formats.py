"""Rows of published data sets, written by hand in their schemas, and rows that could be read in two ways."""

from __future__ import annotations

from typing import Any

import pytest

from r1_lightning.tasks.chat_formats import AnyFormat
from r1_lightning.tasks.fields import Row
from r1_lightning.types.errors import InvalidInput

THOUGHT = "<think>\n1+1=2\n</think>\n\n2"
TURNS = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": THOUGHT}]
SHARED = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": THOUGHT}]

# Name -> the row, what it is taken for, the question, the completion.
PUBLISHED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "OpenThoughts": ({"system": "S.", "conversations": SHARED}, "conversations", "S.\n\n1+1?", THOUGHT),
    "ShareGPT": ({"id": "x_0", "conversations": SHARED}, "conversations", "1+1?", THOUGHT),
    "UltraChat": ({"prompt": "1+1?", "prompt_id": "f0", "messages": TURNS}, "messages", "1+1?", THOUGHT),
    "NuminaMath-CoT": (
        {"source": "amc", "problem": "1+1?", "solution": "it is 2", "messages": TURNS},
        "messages",
        "1+1?",
        THOUGHT,
    ),
    "OpenR1-Math": (
        {"problem": "1+1?", "answer": "2", "generations": ["x", THOUGHT], "messages": TURNS},
        "messages",
        "1+1?",
        THOUGHT,
    ),
    "OpenR1-Math without messages": (
        {
            "problem": " 1+1?",
            "solution": "by counting",
            "answer": "2",
            "generations": ["wrong", "cut off", THOUGHT, "later"],
            "is_reasoning_complete": [True, False, True, True],
            "correctness_math_verify": [False, True, False, True],
            "correctness_llama": [None, None, True, None],
        },
        "generations",
        "1+1?",
        THOUGHT,
    ),
    "Alpaca": (
        {"instruction": "Add.", "input": "1 and 1", "output": "2"},
        "instruction and output",
        "Add.\n\n1 and 1",
        "2",
    ),
    "Alpaca without input": (
        {"instruction": "Add.", "input": "", "output": "2"},
        "instruction and output",
        "Add.",
        "2",
    ),
    "Dolly": (
        {"instruction": "Who?", "context": "Ann.", "response": "Ann", "category": "closed_qa"},
        "instruction and response",
        "Who?\n\nAnn.",
        "Ann",
    ),
    "MetaMath": (
        {"type": "GSM_Rephrased", "query": "1+1?", "original_question": "1 + 1", "response": "The answer is: 2"},
        "query and response",
        "1+1?",
        "The answer is: 2",
    ),
    "OpenMathInstruct-1": (
        {"question": "1+1?", "expected_answer": "2", "generated_solution": "2.", "is_correct": True},
        "question and generated_solution",
        "1+1?",
        "2.",
    ),
    "OpenMathInstruct-2": (
        {"problem": "1+1?", "generated_solution": "2.", "expected_answer": "2", "problem_source": "math"},
        "problem and generated_solution",
        "1+1?",
        "2.",
    ),
    "MATH": (
        {"problem": "1+1?", "level": "Level 1", "type": "Algebra", "solution": "\\boxed{2}"},
        "problem and solution",
        "1+1?",
        "\\boxed{2}",
    ),
    "LIMO": ({"question": "1+1?", "solution": "2", "answer": "2"}, "question and solution", "1+1?", "2"),
    "GSM8K": ({"question": "1+1?", "answer": "1+1=2\n#### 2"}, "question and answer", "1+1?", "1+1=2\n#### 2"),
    "s1K": (
        {
            "question": "1+1?",
            "solution": "2",
            "cot_type": "math",
            "thinking_trajectories": ["1+1=2", "other"],
            "attempt": "2",
        },
        "s1K",
        "1+1?",
        THOUGHT,
    ),
    "s1K-1.1": (
        {
            "question": "1+1?",
            "solution": "two",
            "gemini_thinking_trajectory": "g",
            "gemini_attempt": "G",
            "deepseek_thinking_trajectory": "1+1=2",
            "deepseek_attempt": "2",
        },
        "s1K-1.1",
        "1+1?",
        THOUGHT,
    ),
    "an API's log": (
        {"prompt": "1+1?", "reasoning_content": "1+1=2", "response": "2", "model": "deepseek-reasoner"},
        "prompt and response",
        "1+1?",
        THOUGHT,
    ),
    "ours with thinking apart": (
        {"question": "1+1?", "thinking": "1+1=2", "completion": "2"},
        "question and completion",
        "1+1?",
        THOUGHT,
    ),
    "Nemotron": (
        {"input": [{"role": "user", "content": "1+1?"}], "output": THOUGHT, "category": "math"},
        "input and output",
        "1+1?",
        THOUGHT,
    ),
}


@pytest.mark.parametrize(("values", "name", "question", "completion"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_row(values: dict[str, Any], name: str, question: str, completion: str) -> None:
    row = Row(values, "file, row 1")
    found = AnyFormat().to_example(row)
    assert found is not None and (found.question, found.completion, found.earlier) == (question, completion, ())
    assert AnyFormat().format_name(row) == name


@pytest.mark.parametrize(("values", "name", "question", "completion"), PUBLISHED.values(), ids=PUBLISHED)
def test_empty_columns_change_nothing(values: dict[str, Any], name: str, question: str, completion: str) -> None:
    """As a table of rows of all kinds would have them."""
    others = {key for row, _, _, _ in PUBLISHED.values() for key in row}
    for empty in (None, ""):
        found = AnyFormat().to_example(Row(dict.fromkeys(others, empty) | values, "x"))
        assert found is not None and (found.question, found.completion) == (question, completion)


def test_of_several_turns_the_last_reply_is_learned() -> None:
    shared = [*SHARED, {"from": "human", "value": "And 2+2?"}, {"from": "gpt", "value": "4"}]
    found = AnyFormat().to_example(Row({"conversations": shared, "system": "S."}, "x"))
    assert found is not None and (found.question, found.completion) == ("And 2+2?", "4")
    assert found.earlier == (("S.\n\n1+1?", "2"),)
    ours = {"question": "b", "completion": "c", "earlier": [["q", "a"]]}
    found = AnyFormat().to_example(Row(ours, "x"))
    assert found is not None and (found.question, found.earlier) == ("b", (("q", "a"),))


@pytest.mark.parametrize(
    "values",
    [
        {"problem": "q", "generations": ["a", "b"], "correctness_math_verify": [False, False]},
        {"problem": "q", "generations": ["a"], "correctness_math_verify": [True], "is_reasoning_complete": [False]},
        {"problem": "q", "generations": ["a"], "correctness_llama": [None]},
        {"question": "q", "generated_solution": "wrong", "is_correct": False},
    ],
)
def test_a_row_without_a_right_solution_is_left_out(values: dict[str, Any]) -> None:
    assert AnyFormat().to_example(Row(values, "x")) is None


AMBIGUOUS: dict[str, tuple[dict[str, Any], str]] = {
    "two replies": (
        {"prompt": "q", "completion": "a", "response": "b"},
        "response='b'.*completion could be the reply, too",
    ),
    "two questions": (
        {"prompt": "q", "question": "r", "completion": "a"},
        "prompt='q'.*question could be the question",
    ),
    "preferences": ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preferences are for stage=reward_model"),
    "a reference alone": ({"question": "q", "answer": "42"}, "answer='42'.*a reference alone is no reply to learn"),
    "calls": ({"messages": TURNS, "tools": [{"name": "f"}]}, "tools=.*calls of tools are not read"),
    "nothing known": (
        {"text": "abc"},
        "the field 'question' is missing .a row has messages, or conversations, or one of",
    ),
}


@pytest.mark.parametrize(("values", "message"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        AnyFormat().to_example(Row(values, "file, row 1"))
    assert str(refused.value).startswith("file, row 1")


def test_two_columns_that_say_the_same_are_one() -> None:
    found = AnyFormat().to_example(Row({"prompt": "q", "question": "q", "response": "a", "completion": "a"}, "x"))
    assert found is not None and (found.question, found.completion) == ("q", "a")


def test_a_bad_setting_is_named() -> None:
    with pytest.raises(InvalidInput, match="system='hide'"):
        AnyFormat(system="hide")  # type: ignore[arg-type]
