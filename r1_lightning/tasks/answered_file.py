"""Reads question-completion rows from a file (one JSON object per line), to mix them into a data set.

    {"question": "...", "completion": "..."}

Optional fields are "answer", "problem_id", "language", "domain", "level" and "metadata". Every other row format that fine-tuning
reads (`tasks/chat_formats.py`) works, too.

R1's 800k set has 600k sampled rows and 200k rows of other kinds (writing, facts, translation) that were not sampled but reused
(arXiv:2501.12948, section 2.3.3). The shards of a data set that this program wrote (`data/part-00000.jsonl`) have the same format.
An error names the file, the line and the field.
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

FORMAT_VERSION = 2  # increment it when the same file gives other rows


class RowSource(Protocol):
    """A source of rows to mix into a data set, in a fixed order; `content_version` changes whenever the rows do."""

    @property
    def content_version(self) -> str: ...

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]: ...


class AnsweredFile:
    """The rows of `file`, read on first use; rows without a domain get `domain`."""

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
        """Return all rows in file order, with every field filled in. Raises `InvalidInput`."""
        return self._content[0]

    @cached_property
    def _content(self) -> tuple[list[dict[str, Any]], str]:
        digest = hashlib.sha256()
        rows = list(answered_rows([self.path], self.domain, digest))
        return rows, digest.hexdigest()[:16]


def answered_rows(paths: Sequence[Path], domain: str, digest: hashlib._Hash | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of several JSON-lines files, one file after the other."""
    for path in paths:
        for row in Rows(str(path), max_row_chars=MAX_TEXT_CHARS).read(digest):
            example = AnyFormat().to_example(row)
            if example is not None:
                yield _answered(row, example, domain)


def _answered(row: Row, example: ChatExample, domain: str) -> dict[str, Any]:
    """Take `answer` and `metadata` from rows in our own format only: in other formats these columns mean something else."""
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
