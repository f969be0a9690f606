"""Questions with their answers from a file, to be mixed into a data set: one JSON object per line.

    {"question": "...", "completion": "..."}

and, where known, "answer", "problem_id", "language", "domain", "level" and "metadata". Rows of the other formats that fine-tuning
reads (`tasks/chat_formats.py`) serve as well.

R1's 800k set is 600k sampled rows and 200k of other kinds, writing, facts, translation, that were not sampled but taken over
(arXiv:2501.12948, section 2.3.3). The parts of a data set that this program made (`data/part-00000.jsonl`) have the same form. A
line that is not what it should be is refused by file, line and field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from r1_lightning.tasks.chat_formats import OURS, AnyFormat, format_of
from r1_lightning.tasks.fields import Row, question_id
from r1_lightning.tasks.rows import MAX_TEXT_CHARS, Rows, path_of
from r1_lightning.text.language import LANGUAGES, language_of
from r1_lightning.types.text import ChatExample

FORMAT_VERSION = 2  # goes up when the same file would give other rows


class RowSource(Protocol):
    """Rows to be mixed into a data set, in a fixed order; `content_version` changes with them."""

    @property
    def content_version(self) -> str: ...

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]: ...


class AnsweredFile:
    """The rows of `file`, read when they are first asked for; `domain` is that of rows that name none."""

    def __init__(
        self, file: str | None = None, domain: str = "general", folder: str | None = None, name: str | None = None
    ) -> None:
        self.path = path_of(file, folder, name, "stage.sources.file")
        self.domain = domain

    @property
    def content_version(self) -> str:
        return f"answered-{FORMAT_VERSION}-{self._content[1]}"

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """All rows, in their order, with every field. Raises `InvalidInput`."""
        return self._content[0]

    @cached_property
    def _content(self) -> tuple[list[dict[str, Any]], str]:
        digest = hashlib.sha256()
        rows = list(answered_rows([self.path], self.domain, digest))
        return rows, digest.hexdigest()[:16]


def answered_rows(paths: Sequence[Path], domain: str, digest: hashlib._Hash | None = None) -> Iterator[dict[str, Any]]:
    """The rows of several files of JSON lines, one file after the other."""
    for path in paths:
        for row in Rows(str(path), max_row_chars=MAX_TEXT_CHARS).read(digest):
            example = AnyFormat().to_example(row)
            if example is not None:
                yield _answered(row, example, domain)


def _answered(row: Row, example: ChatExample, domain: str) -> dict[str, Any]:
    """What the row says of itself counts where it is one of ours; columns of that name mean something else in others' rows."""
    known, question = example.metadata, example.question
    is_ours = format_of(row).name == OURS
    return {
        "question": question,
        "completion": example.completion,
        **({"earlier": example.earlier} if example.earlier else {}),
        "answer": row.optional_text("answer") if is_ours else "",
        "problem_id": known.get("problem_id") or question_id("row", *(asked for asked, _ in example.earlier), question),
        "language": known.get("language") or language_of(question) or LANGUAGES[0],
        "domain": known.get("domain") or domain,
        "level": int(known.get("level", 1)),
        "metadata": row.optional_object("metadata") if is_ours else {},
    }
