r"""Readers of published formats whose answers are judged by text or mathematics: MATH, AIME, GPQA and CMATH.

Each adaptor is a frozen dataclass with `to_problem(row)`; `DatasetTask` does the rest. Programming problems are in `code_adaptors`,
chat rows (TRL, verl) in `chat_adaptors`, GSM8K in `gsm8k`.

Differences from the published rows:
- GPQA lists the right option first. Here a hash of the row shuffles the options, so that the answer is not always A.
- AIME's "042" and 42 are the same answer, written 42.
- Some rows of MATH have no answer field; their answer is the content of the solution's last box.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import ClassVar

from r1_lightning.tasks.dataset_task import STEPS
from r1_lightning.tasks.fields import Row, question_id
from r1_lightning.tasks.keyed import keyed_number
from r1_lightning.text.boxed import boxed_answer
from r1_lightning.text.language import question_language
from r1_lightning.types.errors import require_int
from r1_lightning.types.text import Problem

OPTIONS = "options"  # the key in a GPQA problem's metadata: the options' texts in the order shown, as JSON
LETTERS = "ABCD"
_MATH_LEVEL = re.compile(r"Level ([1-5?])")
_MAX_AIME, _MAX_GRADE = 999, 12


@dataclass(frozen=True)
class Math:
    """MATH and MATH-500 (Hendrycks et al. 2021, arXiv:2103.03874): `problem`, `solution`, `level`, and an `answer` or a box.

    "Level ?", which a few rows have, counts as 1. The subject (`subject`, or `type`) goes into the metadata.
    """

    name: ClassVar[str] = "math"
    version: ClassVar[int] = 2

    def to_problem(self, row: Row) -> Problem:
        question, solution = row.text("problem"), row.text("solution")
        if row.fields.get("answer") is not None:
            answer = row.answer("answer")
        else:
            answer = row.checked_answer("solution", boxed_answer(solution) or "")
        metadata = {STEPS: solution.strip(), "subject": row.optional_text("subject") or row.optional_text("type")}
        problem_id, language = question_id(self.name, question), question_language(question)
        return Problem(question.strip(), answer, problem_id, language, _math_level(row), metadata)


@dataclass(frozen=True)
class Aime:
    """AIME: `problem`, an `answer` from 0 to 999, and sometimes a worked `solution`."""

    name: ClassVar[str] = "aime"
    version: ClassVar[int] = 2

    def to_problem(self, row: Row) -> Problem:
        question = row.text("problem")
        answer = str(row.parse_int("answer", 0, _MAX_AIME))
        solution = row.optional_text("solution").strip()
        problem_id, metadata = question_id(self.name, question), {STEPS: solution} if solution else {}
        return Problem(question.strip(), answer, problem_id, question_language(question), metadata=metadata)


@dataclass(frozen=True)
class CMath:
    """CMATH (Wei et al. 2023, arXiv:2306.16636): Chinese, `question` and `answer` (on the hub `golden`); `grade` is the level."""

    name: ClassVar[str] = "cmath"
    version: ClassVar[int] = 1

    def to_problem(self, row: Row) -> Problem:
        question = row.text("question")
        answer = row.answer("golden" if "answer" not in row.fields and "golden" in row.fields else "answer")
        grade = row.parse_int("grade", 1, _MAX_GRADE)
        return Problem(question.strip(), answer, question_id(self.name, question), language="zh", level=grade)


@dataclass(frozen=True)
class GPQA:
    """GPQA (Rein et al. 2023, arXiv:2311.12022): a `Question`, its `Correct Answer` and three wrong ones; the answer is a letter.

    The order of the options depends on the row's text and `options_seed`, not on the row's position in the file. Raises
    `InvalidInput` for a row whose right option also stands among the wrong ones.
    """

    options_seed: int = 0

    name: ClassVar[str] = "gpqa"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require_int("options_seed", self.options_seed, 0)

    def to_problem(self, row: Row) -> Problem:
        question = row.text("Question").strip()
        right = row.text("Correct Answer").strip()
        wrong = [row.text(f"Incorrect Answer {number}").strip() for number in (1, 2, 3)]
        if right in wrong:
            row.refuse("Correct Answer", right, "it also stands among the wrong ones")
        problem_id = question_id(self.name, question, *sorted([right, *wrong]))
        keys = [
            (keyed_number(f"{self.options_seed}/{problem_id}/{number}"), text)
            for number, text in enumerate([right, *wrong])
        ]
        options = [text for _, text in sorted(keys)]
        shown = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=True))
        subject = row.optional_text("High-level domain")
        return Problem(
            f"{question}\n\n{shown}\n\nAnswer with the letter of the right option.",
            LETTERS[options.index(right)],
            problem_id,
            question_language(question),
            metadata={OPTIONS: json.dumps(options, ensure_ascii=False), "subject": subject},
        )


def _math_level(row: Row) -> int:
    value = row.value("level")
    if isinstance(value, str) and (match := _MATH_LEVEL.fullmatch(value.strip())):
        return 1 if match[1] == "?" else int(match[1])
    return row.parse_int("level", 1, 5)
