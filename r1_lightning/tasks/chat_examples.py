"""Worked examples for supervised fine-tuning: a question and the completion to be learned, from rows of three formats.

    {"question": "...", "completion": "..."}                             ours; `stage=sample` writes it
    {"prompt": "..." or [messages], "completion": "..." or [messages]}   TRL's prompt-completion
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}   TRL's conversations

Ours may say `language` ("en" or "zh"), `domain`, `problem_id` and `level` besides; other fields are not looked at. A system
message is kept beside the example and not shown to the model: our templates have no place for it. Conversations of several turns
are refused.

R1 learned from thousands of such examples at its cold start, and from some 800,000 in its second fine-tuning, which its students
learned from, too (R1v2 sections 3.1 and B.3.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from r1_lightning.tasks.chat_adaptors import SYSTEM, messages_of, question_of
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.rows import MAX_TEXT_CHARS, Rows
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import ChatExample

FORMAT_VERSION = 1  # goes up when the same rows would give other examples
MAX_LEVEL = 1_000
SHARDS, ONE_FILE = "data", "data.jsonl"  # where the artefact of a data set holds its rows


class ExampleAdaptor(Protocol):
    """Reads the rows of one format. Raises InvalidInput for a broken row, by file, line and field."""

    def to_example(self, row: Row) -> ChatExample: ...


@dataclass(frozen=True)
class QuestionCompletion:
    """Our own rows."""

    def to_example(self, row: Row) -> ChatExample:
        known: dict[str, str] = {name: row.optional_text(name) for name in ("language", "domain", "problem_id")}
        if known["language"] not in ("", *LANGUAGES):
            row.refuse("language", known["language"], f"it must be one of {', '.join(LANGUAGES)}, or left out")
        if _holds(row, "level"):
            known["level"] = str(row.whole("level", 0, MAX_LEVEL))
        return _example(row, row.text("question"), row.text("completion"), known)


@dataclass(frozen=True)
class PromptCompletion:
    """TRL's prompt-completion rows: each of the two is text, or messages."""

    def to_example(self, row: Row) -> ChatExample:
        question, system = question_of(row, "prompt")
        completion = row.value("completion")
        if isinstance(completion, str):
            text = row.text("completion")
        else:
            allowed = "text, or one message of the assistant, is needed"
            unasked, (text,) = messages_of(row, "completion", ["assistant"], allowed)
            if unasked:
                row.refuse("completion", [SYSTEM, "assistant"], allowed)
        return _example(row, question, text, {SYSTEM: system})


@dataclass(frozen=True)
class Messages:
    """TRL's conversations: one question of the user and one answer of the assistant, with at most a system message before."""

    def to_example(self, row: Row) -> ChatExample:
        allowed = (
            "one message of the user and one of the assistant are needed, with at most a system message before them"
        )
        system, (question, completion) = messages_of(row, "messages", ["user", "assistant"], allowed)
        return _example(row, question, completion, {SYSTEM: system})


# The fields by which a row is recognised -> how it is read.
FORMATS: Mapping[tuple[str, ...], ExampleAdaptor] = {
    ("messages",): Messages(),
    ("prompt", "completion"): PromptCompletion(),
    ("question", "completion"): QuestionCompletion(),
}


@dataclass(frozen=True)
class AnyFormat:
    """Reads each row by the fields that hold something."""

    def to_example(self, row: Row) -> ChatExample:
        for names, adaptor in FORMATS.items():
            if _holds(row, names[0]):
                return adaptor.to_example(row)
        wanted = ", or ".join(" and ".join(names) for names in FORMATS)
        empty = ", ".join(f"{names[0]}={row.fields[names[0]]!r}" for names in FORMATS if names[0] in row.fields)
        if empty:
            raise InvalidInput(f"{row.where}: {empty} is not allowed: one must hold something (a row has {wanted})")
        raise InvalidInput(f"{row.where}: the field 'question' is missing (a row has {wanted})")


class ChatExamples:
    """The examples of a file, a folder of files, or a data set of the hub (see `tasks.rows`), read when first asked for.

    Args:
        file: a .jsonl, .json, .csv or .parquet file, or a folder of files named after the split.
        hub: a data set's name, "owner/name", where there is no such file; `config`, `split` and `revision` as in `Rows`.
        adaptor: reads a row; the default takes each of the three formats.

    With neither `file` nor `hub` there is nothing to read, and asking for it raises InvalidInput: the examples are then an input of
    the stage.
    """

    def __init__(
        self,
        file: str | None = None,
        hub: str | None = None,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        adaptor: ExampleAdaptor | None = None,
    ) -> None:
        self.adaptor = adaptor or AnyFormat()
        self.rows = Rows(file, hub, config, split, revision, max_row_chars=MAX_TEXT_CHARS) if file or hub else None

    @classmethod
    def of_folder(cls, folder: str | Path) -> ChatExamples:
        """Those of a data-set artefact: `data/part-*.jsonl`, or `data.jsonl`."""
        shards = Path(folder) / SHARDS
        return cls(str(shards), split="part") if shards.is_dir() else cls(str(Path(folder) / ONE_FILE))

    @property
    def is_named(self) -> bool:
        """Whether there is a place to read from."""
        return self.rows is not None

    @property
    def content_version(self) -> str:
        """Of all that was read."""
        return self._content[1] if self.is_named else "none"

    def read(self) -> Sequence[ChatExample]:
        """All examples, in the order of their rows."""
        return self._content[0]

    @cached_property
    def _content(self) -> tuple[list[ChatExample], str]:
        if self.rows is None:
            raise InvalidInput(
                "data.examples.file=None is not allowed: give a file (or data.examples.hub=OWNER/NAME), or an artefact with a "
                "data set by +stage.inputs.data.folder=FOLDER"
            )
        digest = hashlib.sha256()
        examples = [self.adaptor.to_example(row) for row in self.rows.read(digest)]
        return examples, f"chat-{FORMAT_VERSION}-{digest.hexdigest()[:16]}"


def _holds(row: Row, name: str) -> bool:
    """Column formats give every row all columns: null where there is nothing, in CSV empty text."""
    return row.fields.get(name) not in (None, "")


def _example(row: Row, question: str, completion: str, known: Mapping[str, str]) -> ChatExample:
    return ChatExample(question, completion, row.where, {name: value for name, value in known.items() if value})
