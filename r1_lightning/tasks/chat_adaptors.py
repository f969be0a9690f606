r"""Rows that other trainers read: TRL's prompt format, and verl's Parquet rows.

Both hold a prompt that may be a list of chat messages. A problem of ours is one question, so of messages the one of the user is
the question, and a system message goes into the metadata: our templates have no place for it, and it is not shown to the model.
Conversations of several turns are refused, because their last question alone would be another problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from r1_lightning.tasks.fields import Row, question_id
from r1_lightning.text.boxed import boxed_answer
from r1_lightning.text.language import LANGUAGES, language_of
from r1_lightning.types.errors import require, require_choice
from r1_lightning.types.text import Language, Problem

SYSTEM = "system"  # the key of a problem's metadata that holds a system message
AnswerForm = Literal["plain", "boxed", "hashes"]


@dataclass(frozen=True)
class TRL:
    """TRL's rows for GRPO: a `prompt` (text or messages) and a column with the answer.

    Args:
        answer_field: the column's name; there is no standard one ("answer", "solution", "ground_truth").
        answer_form: "plain": the column is the answer; "boxed": it holds the answer in its last box; "hashes": after `####`.
        language: of the questions; None finds it out for each.
    """

    answer_field: str = "answer"
    answer_form: AnswerForm = "plain"
    language: Language | None = None

    name: ClassVar[str] = "trl"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(bool(self.answer_field), "answer_field", self.answer_field, "it must be the name of a column")
        require_choice("answer_form", self.answer_form, get_args(AnswerForm))
        require_choice("language", self.language, (*LANGUAGES, None))

    def to_problem(self, row: Row) -> Problem:
        question, system = question_of(row, "prompt")
        answer = answer_in(row, self.answer_field, self.answer_form)
        language = self.language or language_of(question) or "en"
        metadata = {SYSTEM: system} if system else {}
        return Problem(question, answer, question_id(self.name, question), language=language, metadata=metadata)


@dataclass(frozen=True)
class Verl:
    """verl's rows: `prompt` (messages), `reward_model` with style "rule" and a `ground_truth`, `data_source`, `extra_info`.

    Of `extra_info`, `split` and `index` are kept. A ground truth that is no text or number (tests of programs) is refused, and
    so is any other style: no rule could judge it. `language` as in `TRL`.
    """

    language: Language | None = None

    name: ClassVar[str] = "verl"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_choice("language", self.language, (*LANGUAGES, None))

    def to_problem(self, row: Row) -> Problem:
        question, system = question_of(row, "prompt")
        judged = row.inner("reward_model")
        if judged.value("style") != "rule":
            judged.refuse("style", judged.value("style"), "only 'rule' can be judged here")
        extra = row.fields.get("extra_info")
        kept = {name: extra[name] for name in ("split", "index") if name in extra} if isinstance(extra, Mapping) else {}
        metadata = {
            "data_source": row.text("data_source"),
            **{name: str(value) for name, value in kept.items() if value is not None},
            **({SYSTEM: system} if system else {}),
        }
        language = self.language or language_of(question) or "en"
        problem_id = question_id(self.name, question)
        return Problem(question, judged.answer("ground_truth"), problem_id, language=language, metadata=metadata)


def question_of(row: Row, name: str) -> tuple[str, str]:
    """The question of a prompt, and its system message or "". Raises `InvalidInput` for a conversation of several turns."""
    value = row.value(name)
    if isinstance(value, str):
        return row.text(name).strip(), ""
    if not isinstance(value, list):
        row.refuse(name, value, "it must be text, or a list of messages with role and content")
    allowed = "one message of the user is needed, with at most a system message before it"
    system, (question,) = messages_of(row, name, ["user"], allowed)
    return question.strip(), system.strip()


def messages_of(row: Row, name: str, roles: Sequence[str], allowed: str) -> tuple[str, list[str]]:
    """The system message under `name`, or "", and the contents of the messages behind it, whose roles must be `roles`."""
    value = row.value(name)
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        row.refuse(name, value, "it must be a list of messages with role and content")
    messages = [Row(message, f"{row.where}, {name}[{number}]") for number, message in enumerate(value)]
    found = [message.text("role") for message in messages]
    system = messages.pop(0).optional_text("content") if found[:1] == [SYSTEM] else ""
    if found[len(found) - len(messages) :] != list(roles):
        row.refuse(name, found, allowed)
    return system, [message.text("content") for message in messages]


def answer_in(row: Row, name: str, form: AnswerForm) -> str:
    """The answer that the field `name` holds in the given form."""
    if form == "plain":
        return row.answer(name)
    text = row.text(name)
    if form == "boxed":
        return row.checked_answer(name, boxed_answer(text) or "")
    return row.checked_answer(name, text.rpartition("####")[2] if "####" in text else "")
