"""A cache of token ids on disk: a large file is read and tokenised once, and every later start takes a second.

A table is a folder with one plain file of numbers for each column (little-endian, no pickle) and `about.json`. Its name is a digest
of everything that it depends on: the bytes of the rows, the way they are read, the tokenizer and the template. Columns are written
example by example and read through the system's page cache (`mmap`), so they need not fit into memory. A folder gets its name when
it is complete; a damaged one is made again. We never delete tables; a user may delete the folder `token_cache` at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from r1_lightning.artefacts.files import output_folder, write_json
from r1_lightning.rollout.chat_rows import ChatRows, chat_rows
from r1_lightning.tasks.turns import SYSTEM
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.reasoning_format import FORMS
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.text import ChatExample

FORMAT_VERSION = 1  # raise it when the same examples would give another table
DOCUMENTS_PER_CALL = 2048  # tokenised at once
ABOUT = "about.json"
# Column -> the type of its numbers. `formed` and `system` are 0 or 1, `domain` is the number of a domain, or -1.
COLUMNS = {"ids": "<i4", "prompt_ends": "<i8", "ends": "<i8", "formed": "|i1", "system": "|i1", "domain": "<i4"}
Columns = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Tokenised examples, with columns for the template's form, a system message, and the index into `domains`.

    `reading` is a line about the rows of the file: how many were read, and what was left out.
    """

    columns: Columns
    domains: Sequence[str]
    reading: str

    @property
    def rows(self) -> ChatRows:
        """All examples as rows."""
        return ChatRows.of_arrays(*(self.columns[name] for name in ("ids", "prompt_ends", "ends")))

    @property
    def lengths(self) -> Any:
        """Tokens of each example, prompt and EOS included."""
        return np.diff(self.columns["ends"], prepend=0)


def digest_of(*parts: str) -> str:
    """Return a hash of `parts`, 16 hexadecimal digits."""
    return hashlib.sha256("\0".join((str(FORMAT_VERSION), *parts)).encode()).hexdigest()[:16]


class TokenCache:
    """The tables in `folder`. `source` identifies the rows and how they are read, `reader` the tokenizer and the template."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def was_read(self, source: str) -> bool:
        """True if these rows have been read completely before, with any tokenizer."""
        return any(self.folder.glob(f"{digest_of(source)}-*/{ABOUT}"))

    def path(self, source: str, reader: str) -> Path:
        return self.folder / f"{digest_of(source)}-{digest_of(reader)}"

    def read(self, path: Path, vocab_size: int) -> Table | None:
        """Return the table at `path`; None if there is none, or it is damaged."""
        try:
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            columns = {name: np.memmap(path / name, dtype, "r") for name, dtype in COLUMNS.items()}
            table = Table(columns, [str(name) for name in about["domains"]], str(about["reading"]))
            sizes = {name: len(column) for name, column in columns.items()}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return table if sizes == about.get("sizes") and _is_sound(table, vocab_size) else None

    def write(
        self,
        path: Path,
        examples: Iterable[ChatExample],
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        reading: Callable[[], str] = str,
    ) -> None:
        """Make the table at `path`; calls `reading` after the last example. If `examples` raises, nothing is left behind."""
        temporary = self.folder / f".{path.name}.{os.getpid()}.tmp"
        with output_folder(self.folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                with ExitStack() as stack:
                    files = {name: stack.enter_context((temporary / name).open("wb")) for name in COLUMNS}
                    sizes = dict.fromkeys(COLUMNS, 0)
                    domains: dict[str, int] = {}
                    for block in blocks(examples, tokenizer, template, domains):
                        for name, values in _in_place(block, sizes["ids"]).items():
                            values.tofile(files[name])
                            sizes[name] += len(values)
                about = {"sizes": sizes, "domains": list(domains), "reading": reading()}
                write_json(temporary / ABOUT, about)
                shutil.rmtree(path, ignore_errors=True)  # a damaged table
                os.replace(temporary, path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise


def table_of(examples: Iterable[ChatExample], tokenizer: TextTokenizer, template: ChatTemplate) -> Table:
    """Return the table of `examples` in memory, without a cache."""
    parts: dict[str, list[Any]] = {name: [np.zeros(0, dtype)] for name, dtype in COLUMNS.items()}
    domains: dict[str, int] = {}
    n_ids = 0
    for block in blocks(examples, tokenizer, template, domains):
        for name, values in _in_place(block, n_ids).items():
            parts[name].append(values)
        n_ids += len(parts["ids"][-1])
    return Table({name: np.concatenate(found) for name, found in parts.items()}, list(domains), "")


def blocks(
    examples: Iterable[ChatExample], tokenizer: TextTokenizer, template: ChatTemplate, domains: dict[str, int]
) -> Iterator[dict[str, list[int]]]:
    """Yield the columns of `DOCUMENTS_PER_CALL` examples at a time, with ends counted from the block's first token."""
    parse, source = FORMS[template.form].parse, iter(examples)
    while some := list(islice(source, DOCUMENTS_PER_CALL)):
        block: dict[str, list[int]] = {name: [] for name in COLUMNS}
        rows = chat_rows([(example, example.completion) for example in some], tokenizer, template)
        for example, row in zip(some, rows, strict=True):
            block["ids"] += row.prompt
            block["prompt_ends"].append(len(block["ids"]))
            block["ids"] += row.completion
            block["ends"].append(len(block["ids"]))
            block["formed"].append(parse(template.respond(example.completion)).well_formed)
            block["system"].append(SYSTEM in example.metadata)
            name = example.metadata.get("domain")
            block["domain"].append(-1 if name is None else domains.setdefault(name, len(domains)))
        yield block


def _in_place(block: dict[str, list[int]], before: int) -> Columns:
    """Return the block's columns as arrays, with ends counted from the table's first token; `before` tokens precede the block."""
    arrays = {name: np.array(values, COLUMNS[name]) for name, values in block.items()}
    return arrays | {name: arrays[name] + before for name in ("prompt_ends", "ends")}


def _is_sound(table: Table, vocab_size: int) -> bool:
    """True if the columns fit each other: a truncated or overwritten file must not become training data."""
    ids, prompt_ends, ends = (table.columns[name] for name in ("ids", "prompt_ends", "ends"))
    counts = {len(table.columns[name]) for name in COLUMNS if name != "ids"}
    if counts != {len(ends)} or not len(ends) or ends[-1] != len(ids):
        return False
    starts = np.concatenate([[0], ends[:-1]])
    in_order = bool((starts <= prompt_ends).all() and (prompt_ends < ends).all())
    return in_order and int(ids.min()) >= 0 and int(ids.max()) < vocab_size
