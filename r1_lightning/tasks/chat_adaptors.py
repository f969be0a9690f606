"""Adaptors for other trainers' RL data: TRL's prompt format, and verl's Parquet rows (DAPO-Math-17k and Skywork-OR1 among them).

Both hold a prompt that may be a conversation (`tasks/turns.py`): its last message is the question, and the earlier messages belong
to the prompt. A system message is put before the first question, because our templates have no other place for it; `system:
leave_out` drops it. The metadata holds it in either case, as it does every unused column (`tasks/columns.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from r1_lightning.tasks.columns import columns_of, inner_columns
from r1_lightning.tasks.fields import Row, question_id
from r1_lightning.tasks.turns import SYSTEM, Dialogue, dialogue_of, refuse_calls
from r1_lightning.text.boxed import boxed_answer
from r1_lightning.text.language import LANGUAGES, language_of
from r1_lightning.types.errors import require, require_choice
from r1_lightning.types.text import Language, Problem

AnswerForm = Literal["plain", "boxed", "hashes"]
SystemMessages = Literal["show", "leave_out"]
RULE = "rule"  # prefix of verl's styles with a rule-based reward: "rule", "rule-lighteval/MATH_v2"


@dataclass(frozen=True)
class TRL:
    """TRL's rows for GRPO: a `prompt` (text or messages) and a column with the answer.

    Args:
        answer_field: the column's name; there is no standard one ("answer", "solution", "ground_truth").
        answer_form: "plain": the column is the answer; "boxed": the answer is in its last box; "hashes": after `####`.
        language: the questions' language; None detects it per question.
        system: whether a system message is shown to the model.
    """

    answer_field: str = "answer"
    answer_form: AnswerForm = "plain"
    language: Language | None = None
    system: SystemMessages = "show"

    name: ClassVar[str] = "trl"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(bool(self.answer_field), "answer_field", self.answer_field, "it must be the name of a column")
        require_choice("answer_form", self.answer_form, get_args(AnswerForm))
        require_choice("language", self.language, (*LANGUAGES, None))
        require_choice("system", self.system, get_args(SystemMessages))

    def to_problem(self, row: Row) -> Problem:
        asked = prompt_of(row, "prompt")
        answer = answer_in(row, self.answer_field, self.answer_form)
        metadata = columns_of(row, ("prompt", self.answer_field))
        return problem_of(self.name, asked, answer, metadata, self.language, self.system)


@dataclass(frozen=True)
class Verl:
    """verl's rows: `prompt` (messages), `reward_model` with a style that begins with "rule" and a `ground_truth`, `data_source`.

    A ground truth is text, a number, or a list of one of these (also as JSON text, as in Skywork-OR1). Any other ground truth
    (tests of programs) raises `InvalidInput`, and so does a style that needs a model as judge. The fields of `extra_info` go into
    the metadata, too. `language` and `system` are as in `TRL`.
    """

    language: Language | None = None
    system: SystemMessages = "show"

    name: ClassVar[str] = "verl"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require_choice("language", self.language, (*LANGUAGES, None))
        require_choice("system", self.system, get_args(SystemMessages))

    def to_problem(self, row: Row) -> Problem:
        asked = prompt_of(row, "prompt")
        judged = row.inner("reward_model")
        style = judged.value("style")
        if not isinstance(style, str) or style.partition("-")[0] != RULE:
            judged.refuse("style", style, "only 'rule', or a style that begins with 'rule-', can be judged here")
        answer = reference(judged, "ground_truth")
        others = columns_of(row, ("prompt", "reward_model", "extra_info", "data_source"))
        metadata = {**others, **inner_columns(row, "extra_info"), "data_source": row.text("data_source")}
        return problem_of(self.name, asked, answer, metadata, self.language, self.system)


def problem_of(
    prefix: str,
    asked: Dialogue,
    answer: str,
    metadata: dict[str, str],
    language: Language | None = None,
    system: SystemMessages = "show",
) -> Problem:
    """Return the problem of a conversation; its id depends on the user's messages alone, not on the system message."""
    question, earlier = asked.shown(with_system=system == "show")
    told = {SYSTEM: asked.system.strip()} if asked.system.strip() else {}
    spoken = language or language_of(asked.question) or "en"
    problem_id = question_id(prefix, *asked.asked)
    return Problem(question, answer, problem_id, language=spoken, metadata={**metadata, **told}, earlier=earlier)


def prompt_of(row: Row, name: str) -> Dialogue:
    """Return the prompt in the field `name`: text, or a conversation that ends with a user message."""
    refuse_calls(row)
    value = row.value(name)
    if isinstance(value, str):
        return Dialogue(row.text(name).strip())
    if not isinstance(value, list):
        row.refuse(name, value, "it must be text, or a list of messages with role and content")
    return dialogue_of(row, name, ends_with_reply=False)


def answer_in(row: Row, name: str, form: AnswerForm) -> str:
    """Return the answer from the field `name`, which holds it in the given form."""
    if form == "plain":
        return reference(row, name)
    text = row.text(name)
    if form == "boxed":
        return row.checked_answer(name, boxed_answer(text) or "")
    return row.checked_answer(name, text.rpartition("####")[2] if "####" in text else "")


def reference(row: Row, name: str) -> str:
    """Return the reference answer under `name`: text, a number, or a list of one of these, which may be JSON text."""
    value = row.value(name)
    given = _json_texts(value) if isinstance(value, str) else value
    if not isinstance(given, list):
        return row.answer(name)
    found = [Row({name: item}, row.where).answer(name) for item in given]
    if len(set(found)) != 1:
        row.refuse(name, value, "one reference answer is needed, or a list that holds one")
    return found[0]


def _json_texts(text: str) -> Any:
    """Parse a JSON list of texts; leave any other text as it is: `[1, 2]` may be an answer, `["34"]` is a list of one."""
    if not text.lstrip().startswith('["'):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else text
