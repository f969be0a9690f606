"""Examples for supervised fine-tuning: a question, perhaps with earlier turns, and the completion to learn.

    {"question": "...", "completion": "..."}                             ours; `stage=sample` writes it
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

and every other format in `tasks/chat_formats.py`: a row's fields decide its format, and the log says which formats were found.

The last reply of a conversation is learned; everything before it belongs to the prompt. A system message is put before the first
question (`system: leave_out` drops it). An unreadable row stops the run; with `unreadable: drop` such rows are skipped and counted.

R1 learned from thousands of such examples at its cold start, and from some 800,000 in its second fine-tuning, which its students
learned from, too (R1v2 sections 3.1 and B.3.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from r1_lightning.tasks.chat_adaptors import SystemMessages
from r1_lightning.tasks.chat_formats import AnyFormat
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.reading import REFUSE, UNREADABLE, Reading, items_of
from r1_lightning.tasks.rows import MAX_TEXT_CHARS, Rows
from r1_lightning.types.errors import InvalidInput, require_choice
from r1_lightning.types.text import ChatExample

FORMAT_VERSION = 2  # increment it when the same rows give other examples
SHARDS, ONE_FILE = "data", "data.jsonl"  # where the artefact of a data set holds its rows


class ExampleAdaptor(Protocol):
    """Turns rows into examples; returns None for a row that its format skips, raises InvalidInput for a broken one."""

    def to_example(self, row: Row) -> ChatExample | None: ...


class ChatExamples:
    """The examples of a file, a folder of files, or a data set of the hub (see `tasks.rows`), read on first use.

    Args:
        file: a .jsonl, .json, .csv or .parquet file, or a folder of files named after the split.
        hub: a data set's name, "owner/name", used if `file` does not exist; `config`, `split` and `revision` as in `Rows`.
        adaptor: reads a row; the default reads every format of `tasks/chat_formats.py`.
        system: whether the default adaptor shows a system message to the model ("show"), or drops it ("leave_out").
        unreadable: "refuse" stops at the first unreadable row; "drop" skips such rows, and counts them.

    With neither `file` nor `hub`, reading raises InvalidInput: the examples must then be an input of the stage.
    """

    def __init__(
        self,
        file: str | None = None,
        hub: str | None = None,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        adaptor: ExampleAdaptor | None = None,
        system: SystemMessages = "show",
        unreadable: str = REFUSE,
    ) -> None:
        require_choice("data.examples.unreadable", unreadable, UNREADABLE)
        self.adaptor = adaptor or AnyFormat(system)
        self.unreadable = unreadable
        self.reading = Reading()
        self.rows = Rows(file, hub, config, split, revision, max_row_chars=MAX_TEXT_CHARS) if file or hub else None

    @classmethod
    def of_folder(cls, folder: str | Path) -> ChatExamples:
        """Return the examples of a data-set artefact: `data/part-*.jsonl`, or `data.jsonl`."""
        shards = Path(folder) / SHARDS
        return cls(str(shards), split="part") if shards.is_dir() else cls(str(Path(folder) / ONE_FILE))

    @property
    def is_named(self) -> bool:
        """True if `file` or `hub` names a source."""
        return self.rows is not None

    @property
    def content_version(self) -> str:
        """The version of everything that is read: a digest of the files' bytes, without parsing rows."""
        if self.rows is None:
            return "none"
        if not self.rows.is_local:
            return self._hub_content[1]
        digest = hashlib.sha256()
        self.rows.digest_files(digest)
        return _version(digest)

    @property
    def key(self) -> str:
        """A key of the rows and of how they are read; "" if the adaptor's `repr` does not identify it."""
        adaptor = repr(self.adaptor)
        return (
            ""
            if " object at 0x" in adaptor
            else f"{self.content_version} {type(self.adaptor)} {adaptor} {self.unreadable}"
        )

    @property
    def size(self) -> int:
        """Bytes of the files; 0 for rows of the hub."""
        return self.rows.size if self.rows is not None else 0

    def read(self) -> Sequence[ChatExample]:
        """Return all examples in row order."""
        return list(self.stream())

    def stream(self) -> Iterator[ChatExample]:
        """Yield the examples one by one in row order."""
        if self.rows is None:
            raise InvalidInput(
                "data.examples.file=None is not allowed: give a file (or data.examples.hub=OWNER/NAME), or an artefact with a "
                "data set by +stage.inputs.data.folder=FOLDER"
            )
        self.reading = Reading()
        rows = self.rows.stream() if self.rows.is_local else self._hub_content[0]
        count = 0
        for example in self.examples_of(rows):
            count += 1
            yield example
        if not count:
            raise InvalidInput(f"{self.rows.place}: no row gives an example ({self.reading.text()})")

    @cached_property
    def _hub_content(self) -> tuple[list[Row], str]:
        assert self.rows is not None, "asked for what is named only"
        digest = hashlib.sha256()
        return self.rows.read(digest), _version(digest)

    def examples_of(self, rows: Iterable[Row]) -> Iterator[ChatExample]:
        """Yield the examples of `rows`; `reading` counts the formats and the skipped rows."""
        for _, example in items_of(rows, self.adaptor.to_example, self.adaptor, self.unreadable, self.reading):
            yield example


def _version(digest: hashlib._Hash) -> str:
    return f"chat-{FORMAT_VERSION}-{digest.hexdigest()[:16]}"
