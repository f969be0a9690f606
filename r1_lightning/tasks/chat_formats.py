"""Row formats for fine-tuning: published conversation formats, and columns with a question and a reply.

The non-empty fields of a row decide its format: the first entry of `FORMATS` whose fields are all non-empty reads it.

    messages                    TRL, UltraChat, OpenR1-Math, NuminaMath: role and content
    conversations               ShareGPT, OpenThoughts, Bespoke-Stratos: from and value; optionally a field `system`
    problem, generations        OpenR1-Math: the first generation that is complete and verified as correct; without one, no example
    question, thinking_trajectories, attempt     s1K (and with `deepseek_` before the two, s1K-1.1)
    instruction, output         Alpaca: `input` is appended below the instruction
    instruction, response       Dolly: `context` is appended below the instruction
    a question and a reply      one of `QUESTIONS`, one of `REPLIES`: TRL, MetaMath, OpenMathInstruct, LIMO, MATH, and ours

GSM8K's `answer` counts as a reply, because it holds the steps before its `####`; any other column `answer` is a reference, and a
row that has no other reply raises an error. So does a row in which two columns could be the question or the reply, and a row of
preferences. A field with thinking next to a reply becomes the reply's thinking (`tasks/turns.py`).

Our own format also has the optional fields `language` ("en" or "zh"), `domain`, `problem_id`, `level`, and `earlier`: a list of
[question, reply] of the earlier turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn, get_args

from r1_lightning.tasks.chat_adaptors import SystemMessages, prompt_of
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.turns import (
    SYSTEM,
    Dialogue,
    Turn,
    dialogue_of,
    refuse_calls,
    reply_in,
    with_thinking,
)
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import InvalidInput, require_choice
from r1_lightning.types.text import ChatExample

QUESTIONS = ("question", "problem", "prompt", "query", "instruction", "input")
REPLIES = ("completion", "response", "output", "generated_solution", "solution")
REFERENCE = "answer"
OURS = "question and completion"
MAX_LEVEL = 1_000
ALLOWED = f"a row has messages, or conversations, or one of {', '.join(QUESTIONS)} with one of {', '.join(REPLIES)}"

Known = dict[str, str]
Found = tuple[Dialogue, Known]


class Format(NamedTuple):
    """A row format: its name, the fields that must be non-empty, and its reader, which returns None for a row to skip."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[Row], Found | None]


@dataclass(frozen=True)
class AnyFormat:
    """Reads each row in the format that its non-empty fields decide; `system` says whether the model sees a system message."""

    system: SystemMessages = "show"

    def __post_init__(self) -> None:
        require_choice("system", self.system, get_args(SystemMessages))

    def format_name(self, row: Row) -> str:
        """Return the name of the row's format."""
        return format_of(row).name

    def to_example(self, row: Row) -> ChatExample | None:
        """Return the row's example, or None if its format skips the row. Raises `InvalidInput`."""
        refuse_calls(row)
        found = format_of(row).read(row)
        if found is None:
            return None
        dialogue, known = found
        question, earlier = dialogue.shown(with_system=self.system == "show")
        metadata = {**known, SYSTEM: dialogue.system.strip()}
        kept = {name: value for name, value in metadata.items() if value}
        return ChatExample(question, dialogue.reply, row.where, kept, earlier)


def format_of(row: Row) -> Format:
    """Return the row's format. Raises `InvalidInput` if no format fits, or if the row can be read in two ways."""
    for known in FORMATS:
        if all(holds(row, name) for name in known.fields):
            return known
    if holds(row, "chosen") and holds(row, "rejected"):
        row.refuse("rejected", row.fields["rejected"], "preferences are for stage=reward_model data=preference_file")
    question, reply = _only(row, QUESTIONS, "question"), _only(row, REPLIES, "reply")
    if question and reply:
        return Format(f"{question} and {reply}", (), lambda row: _pair(row, question, reply))
    if question and holds(row, REFERENCE) and "####" in str(row.fields[REFERENCE]):
        return Format(f"{question} and {REFERENCE}", (), lambda row: _pair(row, question, REFERENCE))
    _refuse_unknown(row, question)


def _refuse_unknown(row: Row, question: str) -> NoReturn:
    if question and holds(row, REFERENCE):
        row.refuse(REFERENCE, row.fields[REFERENCE], f"a reference alone is no reply to learn ({ALLOWED})")
    names = REPLIES if question else ("messages", "conversations", *QUESTIONS)
    empty = ", ".join(f"{name}={row.fields[name]!r}" for name in names if name in row.fields)
    if empty:
        raise InvalidInput(f"{row.where}: {empty} is not allowed: one must be non-empty ({ALLOWED})")
    raise InvalidInput(f"{row.where}: the field {names[0] if question else 'question'!r} is missing ({ALLOWED})")


def holds(row: Row, name: str) -> bool:
    """True if the column is non-empty. Column formats give every row all columns: null, in CSV "", in Parquet [] if empty."""
    value = row.fields.get(name)
    return value is not None and value not in ("", [])


def _only(row: Row, names: Sequence[str], what: str) -> str:
    """Return the one non-empty column of `names`, or ""; two columns with equal content count as one."""
    there = [name for name in names if holds(row, name)]
    if any(row.fields[name] != row.fields[there[0]] for name in there[1:]):
        allowed = f"{there[0]} could be the {what}, too: leave one of them ({ALLOWED})"
        row.refuse(there[1], row.fields[there[1]], allowed)
    return there[0] if there else ""


def _conversation(name: str) -> Callable[[Row], Found]:
    def read(row: Row) -> Found:
        dialogue = dialogue_of(row, name, ends_with_reply=True)
        beside = row.optional_text(SYSTEM) if not dialogue.system else ""
        return (replace(dialogue, system=beside) if beside else dialogue), {}

    return read


def _generations(row: Row) -> Found | None:
    texts = row.texts("generations")
    judged = [row.fields[name] for name in ("correctness_math_verify", "correctness_llama") if holds(row, name)]
    complete = row.fields.get("is_reasoning_complete") or [True] * len(texts)
    for number, text in enumerate(texts):
        is_right = not judged or any(number < len(flags) and flags[number] is True for flags in judged)
        if is_right and number < len(complete) and complete[number]:
            return Dialogue(row.text("problem").strip(), with_thinking(row, "generations", text, "")), {}
    return None


def _attempt(prefix: str, thoughts: str) -> Callable[[Row], Found]:
    reply = f"{prefix}attempt"

    def read(row: Row) -> Found:
        value = row.value(thoughts)
        thinking = row.texts(thoughts)[0] if isinstance(value, list) else row.text(thoughts)
        return Dialogue(row.text("question").strip(), with_thinking(row, reply, row.text(reply), thinking)), {}

    return read


def _instruction(below: str, reply: str) -> Callable[[Row], Found]:
    def read(row: Row) -> Found:
        more = row.optional_text(below).strip()
        question = row.text("instruction").strip() + (f"\n\n{more}" if more else "")
        return Dialogue(question, reply_in(row, reply), system=row.optional_text(SYSTEM)), {}

    return read


def _pair(row: Row, question: str, reply: str) -> Found | None:
    if row.fields.get("is_correct") is False:  # OpenMathInstruct-1 publishes wrong solutions, too
        return None
    asked = prompt_of(row, question)
    if (question, reply) == ("question", "completion"):
        return replace(asked, reply=reply_in(row, reply), earlier=asked.earlier or _earlier(row)), _known(row)
    return replace(asked, reply=reply_in(row, reply), system=asked.system or row.optional_text(SYSTEM)), {}


def _known(row: Row) -> Known:
    known = {name: row.optional_text(name) for name in ("language", "domain", "problem_id")}
    if known["language"] not in ("", *LANGUAGES):
        row.refuse("language", known["language"], f"it must be one of {', '.join(LANGUAGES)}, or left out")
    if holds(row, "level"):
        known["level"] = str(row.parse_int("level", 0, MAX_LEVEL))
    return known


def _earlier(row: Row) -> tuple[Turn, ...]:
    value = row.fields.get("earlier") or []
    in_pairs = isinstance(value, list) and all(
        isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(text, str) and text for text in turn)
        for turn in value
    )
    if not in_pairs:
        row.refuse("earlier", value, "it must be a list of [what was asked, what was replied]")
    return tuple((asked, said) for asked, said in value)


FORMATS: Sequence[Format] = (
    Format("messages", ("messages",), _conversation("messages")),
    Format("conversations", ("conversations",), _conversation("conversations")),
    Format("generations", ("problem", "generations"), _generations),
    Format("s1K", ("question", "thinking_trajectories", "attempt"), _attempt("", "thinking_trajectories")),
    Format(
        "s1K-1.1",
        ("question", "deepseek_thinking_trajectory", "deepseek_attempt"),
        _attempt("deepseek_", "deepseek_thinking_trajectory"),
    ),
    Format("instruction and output", ("instruction", "output"), _instruction("input", "output")),
    Format("instruction and response", ("instruction", "response"), _instruction("context", "response")),
)
