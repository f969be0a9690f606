r"""Adaptor for any published row with a question and a reference answer; the fields decide the format: `task=rows`.

    reward_model                           verl, DAPO-Math-17k, Skywork-OR1: read by `Verl`
    a conversation with a `ground_truth`   Open-Reasoner-Zero
    one of `QUESTIONS` and of `ANSWERS`    NuminaMath-1.5, DeepScaleR, OpenR1-Math, Big-Math, OpenMathInstruct, LIMO, TRL's
    one of `QUESTIONS` and of `SOLUTIONS`  MATH, NuminaMath-CoT, MetaMath: the answer is in the solution's last box, after `####`,
                                           after "The answer is", or is the solution itself where that is a number

Of an answer that ends in `#### 42` (GSM8K) the text after the mark counts. Rows that NuminaMath marks as having no answer to
compare ("proof", "notfound") are skipped, and so are rows whose answer is null. A row raises an error if two columns could be the
question, or hold different answers; `task=trl` with `task.source.adaptor.answer_field` then names the right column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, get_args

from r1_lightning.tasks.chat_adaptors import SystemMessages, Verl, problem_of, prompt_of, reference
from r1_lightning.tasks.columns import columns_of
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.turns import Dialogue, refuse_calls
from r1_lightning.text.answers import parse_number
from r1_lightning.text.boxed import boxed_answer
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import InvalidInput, require_choice
from r1_lightning.types.text import Language, Problem

QUESTIONS = ("problem", "question", "prompt", "query", "instruction")
ANSWERS = ("answer", "final_answer", "expected_answer", "ground_truth", "gold", "label")
SOLUTIONS = ("solution", "generated_solution", "response")
MISSING = ("proof", "notfound", "null", "none")  # what NuminaMath-1.5 and OpenR1-Math write for a missing answer
VERL, ORZ = "reward_model", "conversations"
ALLOWED = f"a row has reward_model, or one of {', '.join(QUESTIONS)} with one of {', '.join((*ANSWERS, *SOLUTIONS))}"
_SAID = re.compile(r"(?:the|final) answer is:?\s*(.+?)\s*\.?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class AnyRow:
    """Reads each row in the format that its non-empty fields decide; `language` and `system` are as in `TRL`."""

    language: Language | None = None
    system: SystemMessages = "show"

    name: ClassVar[str] = "rows"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_choice("language", self.language, (*LANGUAGES, None))
        require_choice("system", self.system, get_args(SystemMessages))

    def format_name(self, row: Row) -> str:
        """Return the name of the row's format."""
        if _holds(row, VERL):
            return VERL
        return f"{ORZ} with ground_truth" if _holds(row, ORZ) else " and ".join(_columns(row))

    def to_problem(self, row: Row) -> Problem | None:
        """Return the problem, or None if the row has no answer to compare."""
        refuse_calls(row)
        if _holds(row, VERL):
            return Verl(self.language, self.system).to_problem(row)
        if _holds(row, ORZ):
            asked, answer = _orz(row)
            return problem_of(self.name, asked, answer, columns_of(row, (ORZ,)), self.language, self.system)
        question, column = _columns(row)
        asked, found = prompt_of(row, question), _answer(row, column)
        if found is None:
            return None
        metadata = columns_of(row, (question, column))
        return problem_of(self.name, asked, found, metadata, self.language, self.system)


def _holds(row: Row, name: str) -> bool:
    return row.fields.get(name) not in (None, "", [])


def _columns(row: Row) -> tuple[str, str]:
    """Return the names of the question's and the answer's columns."""
    questions = [name for name in QUESTIONS if _holds(row, name)]
    if not questions:
        _refuse(row, QUESTIONS)
    if any(row.fields[name] != row.fields[questions[0]] for name in questions[1:]):
        allowed = f"{questions[0]} could be the question, too: leave one of them"
        row.refuse(questions[1], row.fields[questions[1]], allowed)
    answers = [name for name in ANSWERS if _holds(row, name)]
    if any(str(row.fields[name]).strip() != str(row.fields[answers[0]]).strip() for name in answers[1:]):
        allowed = f"{answers[0]} holds another one (task=trl task.source.adaptor.answer_field says which one counts)"
        row.refuse(answers[1], row.fields[answers[1]], allowed)
    solutions = [name for name in SOLUTIONS if _holds(row, name)]
    named = [name for name in ANSWERS if name in row.fields]  # present but null: a row without an answer
    return questions[0], next(iter([*answers, *named[:1], *solutions]), "") or _refuse(row, (*ANSWERS, *SOLUTIONS))


def _answer(row: Row, column: str) -> str | None:
    """Return the reference answer in `column`; None if the column says that there is none."""
    value = row.fields[column]
    if value in (None, "") or (isinstance(value, str) and value.strip().casefold() in MISSING):
        return None
    if isinstance(value, str) and "####" in value:
        return row.checked_answer(column, value.rpartition("####")[2].strip().partition("\n")[0].replace(",", ""))
    return worked_answer(row, column) if column in SOLUTIONS else reference(row, column)


def worked_answer(row: Row, column: str) -> str:
    """Return the final answer of a worked solution. Raises `InvalidInput` if the solution marks none."""
    text = row.text(column)
    boxed = boxed_answer(text)
    said = _SAID.search(text.strip().splitlines()[-1])
    if boxed is None and said is None and parse_number(text.strip()) is None:
        row.refuse(column, text, "no box, no #### and no 'The answer is' marks its answer")
    return row.checked_answer(column, boxed if boxed is not None else said[1] if said else text)


def _orz(row: Row) -> tuple[Dialogue, str]:
    """Read Open-Reasoner-Zero's two messages: the user's prompt, and the reference in place of a reply."""
    messages = row.value(ORZ)
    last: Any = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or not isinstance(last.get("ground_truth"), dict):
        row.refuse(ORZ, messages, f"its last message must hold a ground_truth ({ALLOWED})")
    asked = prompt_of(Row({ORZ: messages[:-1]}, row.where), ORZ)
    return asked, reference(Row(last["ground_truth"], f"{row.where}, ground_truth"), "value")


def _refuse(row: Row, names: tuple[str, ...]) -> NoReturn:
    empty = ", ".join(f"{name}={row.fields[name]!r}" for name in names if name in row.fields)
    if empty:
        raise InvalidInput(f"{row.where}: {empty} is not allowed: one must be non-empty ({ALLOWED})")
    raise InvalidInput(f"{row.where}: the field {names[0]!r} is missing ({ALLOWED})")
