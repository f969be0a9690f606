"""Clean traces: right, readable, in one language, in both forms, never on a held-out problem."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.tasks.clean_traces import CleanTraces, clean_completion, clean_rows, in_r1_form
from r1_lightning.tasks.equations import EquationsTask
from r1_lightning.tasks.family import FamilyPart, FamilyTask
from r1_lightning.tasks.general import GeneralTask
from r1_lightning.tasks.logic import ComparisonTask
from r1_lightning.tasks.programs import ProgramsTask
from r1_lightning.tasks.safety import SafetyTask
from r1_lightning.tasks.solved import Solved
from r1_lightning.text.answers import final_answer, lenient_answer
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.language import count_words, is_mixed, language_of
from r1_lightning.text.programs import final_program
from r1_lightning.text.reasoning_format import WRITTEN_FORMS, parse, parse_r1
from r1_lightning.text.response_parts import final_summary
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem

SOURCES = {
    "arithmetic": ArithmeticTask(),
    "equations": EquationsTask(),
    "comparison": ComparisonTask(),
    "programs": ProgramsTask(),
    "general": GeneralTask(),
    "safety": SafetyTask(),
}
REASONING = ("arithmetic", "equations", "comparison", "programs")
FIELDS = ["question", "completion", "answer", "problem_id", "language", "domain", "level"]
CODE_WORDS = re.compile(r"def f\(x\): return [x\d*+-]+|```\w*|\\boxed")  # Python and LaTeX are in no language


def test_both_forms_by_hand() -> None:
    solved = Solved(Problem("3*x=21，x是多少", "7", "e", "zh"), ("3*x=21", "x=7"))
    assert clean_completion(solved, "0", "r1_zero") in (
        " <think>先算3*x=21，所以x=7。</think><answer>7</answer>",
        " <think>得到3*x=21，最后x=7。</think><answer>7</answer>",
    )
    thinking, summary = clean_completion(solved, "0", "r1").split("</think> ")
    assert thinking in (" <think>先算3*x=21，所以x=7。", " <think>得到3*x=21，最后x=7。")
    assert summary in ("答案是\\boxed{7}。", "所以得到\\boxed{7}。", "答案：\\boxed{7}。")


@pytest.mark.parametrize("form", WRITTEN_FORMS)
@pytest.mark.parametrize("name", SOURCES)
def test_rows_are_right_readable_and_in_one_language(name: str, form: str) -> None:
    for row in clean_rows(SOURCES[name], 0, 0, 120, form):  # type: ignore[arg-type]
        assert list(row) == FIELDS and row["domain"] == "reasoning"  # the family sets a part's domain
        completion = row["completion"]
        words = CODE_WORDS.sub("", row["question"] + completion)
        assert not is_mixed(words) and language_of(row["question"]) == row["language"] == language_of(words), row
        thinking = completion[completion.index("<think>") + 7 : completion.index("</think>")]
        assert sum(count_words(thinking).values()) > 0, "calculation alone is not readable"
        if form == "r1_zero":
            assert parse(completion).well_formed and final_answer(completion) == row["answer"]
        else:
            assert (
                completion.startswith(" <think>") and completion.count("<") - thinking.count("<") == 2
            )  # no other tag
            assert final_summary(completion)
            if name in REASONING:
                assert lenient_answer(completion) == row["answer"]
                assert completion.count("\\boxed{") == 1
            else:
                assert final_summary(completion) == row["answer"]


def test_programs_are_read_where_they_stand() -> None:
    for form in WRITTEN_FORMS:
        for row in clean_rows(SOURCES["programs"], 0, 0, 20, form):
            assert final_program(row["completion"], form) == row["answer"]


def test_rows_are_functions_of_seed_and_number() -> None:
    family = FamilyTask({name: FamilyPart(SOURCES[name], "reasoning") for name in REASONING})
    rows = list(clean_rows(family, 0, 0, 12))
    assert list(clean_rows(family, 0, 5, 4)) == rows[5:9]
    assert list(clean_rows(family, 1, 0, 12)) != rows
    assert [row["problem_id"] for row in rows] == [family.train_problem(0, number).problem_id for number in range(12)]


@pytest.mark.parametrize("name", SOURCES)
def test_no_row_is_on_a_held_out_problem(name: str) -> None:
    tested = {problem.problem_id for problem in SOURCES[name].held_out_problems(60)}
    assert not tested & {row["problem_id"] for row in clean_rows(SOURCES[name], 0, 0, 1_000)}


def test_bad_values() -> None:
    for arguments, message in (((0, 0, 1, "r2"), "form='r2'"), ((0, -1, 1), "start=-1"), ((0, 0, -1), "count=-1")):
        with pytest.raises(InvalidInput, match=message):
            list(clean_rows(SOURCES["equations"], *arguments))  # type: ignore[arg-type]


def test_a_source_of_rows_beside_sampled_ones() -> None:
    """All of one domain, the same every time; its version changes with the task's."""
    source = CleanTraces(GeneralTask(), count=5, domain="general", form="r1_zero")
    assert source.rows == [row | {"domain": "general"} for row in clean_rows(GeneralTask(), 0, 0, 5, "r1_zero")]
    assert source.content_version.endswith(GeneralTask.content_version)
    assert CleanTraces(EquationsTask(), count=5).content_version != source.content_version
    with pytest.raises(InvalidInput, match="form='loud' is not allowed"):
        CleanTraces(GeneralTask(), count=5, form="loud")
    with pytest.raises(InvalidInput, match="count=0"):
        CleanTraces(GeneralTask(), count=0)


def test_what_r1_zero_wrote_in_r1_form() -> None:
    """The thinking stays as it is, the answer or program goes into a box, said in the question's language."""
    sums = Problem("2+5", "7", "p", "zh")
    written = in_r1_form(sums, " <think> 2+5=7 </think> <answer> 7 </answer>", "0/1")
    assert (
        written.startswith(" <think>2+5=7</think> ")
        and "\\boxed{7}" in written
        and language_of(final_summary(written)) == "zh"
    )
    assert written == in_r1_form(sums, " <think>2+5=7</think><answer>7</answer>", "0/1")
    program = replace(sums, language="en", metadata={TESTS: "{}"})
    code = in_r1_form(program, " <think>x</think><answer>def f(x): return x</answer>", "0/1")
    assert final_program(code, "r1") == "def f(x): return x" and parse_r1(code).well_formed
    for broken in (" <answer>7</answer>", " <think>2+5</think>7"):
        with pytest.raises(ValueError, match="missing_"):
            in_r1_form(sums, broken, "0/1")


CODE = Problem("Write f", "def f(x): return x", "p", metadata={TESTS: "{}"})


@pytest.mark.parametrize(
    "answer",
    [
        "```python\ndef f(x):\n    return '{'\n```",
        "\n```\nf = 1\n```\n",
        "Here it is:\n```py\nf = 1\n```\nIt returns one.",
    ],
    ids=["a brace that is not closed", "no language", "words around it"],
)
def test_a_fenced_program_is_the_summary_as_it_stands(answer: str) -> None:
    sampled = f" <think>x</think><answer>{answer}</answer>"
    written = in_r1_form(CODE, sampled, "0/1")
    assert written == f" <think>x</think> {answer.strip()}" and parse_r1(written).well_formed
    program = final_program(written, "r1")
    assert program is not None and program == final_program(sampled) and "```" not in program


@pytest.mark.parametrize(
    ("problem", "answer", "kept"),
    [
        (CODE, "def f(x):\n    return {x: {1}}", True),
        (CODE, "\ndef f(x): return x \n", True),  # white space at the end is no other program
        (CODE, "def f(x): return '{'", False),  # the box is not closed
        (CODE, "def f(x): return '}'", False),  # the box is closed too early
        (CODE, "def f(x): return '\\\\boxed{1}'", False),  # another box inside
        (CODE, f"def f(x): return '{'a' * 1_000}'", True),  # as long as answers of generated puzzles are
        (CODE, "  def f(x): return x", False),  # indented, it was another program
        (replace(CODE, metadata={}), "7", True),
        (replace(CODE, metadata={}), "\\boxed{7}", True),  # a verifier reads 7 in both
        (replace(CODE, metadata={}), "{1, 2", False),
        (replace(CODE, metadata={}), "1}, {2", False),
    ],
)
def test_what_would_be_read_otherwise_is_not_rewritten(problem: Problem, answer: str, kept: bool) -> None:
    sampled = f" <think>x</think><answer>{answer}</answer>"
    written = in_r1_form(problem, sampled, "0/1")
    assert (written is not None) == kept
    if written is not None and problem is CODE:
        assert final_program(written, "r1") == str(final_program(sampled)).rstrip()
    elif written is not None:
        assert final_answer(written, "r1") == "7"
