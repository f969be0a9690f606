"""A file of JSON lines that stays below a limit in bytes however long a run is, and that a resumed run goes on with.

The file holds blocks of lines, each with a number that grows: the rollout's, or the step's of an evaluation. Its first line says
of which numbers there are blocks: the multiples of `every`. When the file would pass its limit, `every` doubles and the blocks in
between are removed, so the blocks that remain are evenly spaced over the whole run. `every` is the smallest power of two for which
the blocks up to now fit, whatever happened in between; so an interrupted and resumed run leaves the same bytes.

Adding a block removes all blocks of its number or a later one, which a resumed run takes again, and half a line at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from r1_lightning.artefacts.files import output_folder, replacing
from r1_lightning.types.errors import require_int

HEAD = "records"  # key of the first line
VERSION = 1
SHARE = 8  # a block has at most one SHARE-th of the file
_HEAD_LINE = re.compile(rb'\{"records": %d, "every": (\d{1,18})\}\n' % VERSION)
_BLOCK = re.compile(rb'\{"block":(\d{1,18}),')


class RecordFile:
    """The file at `path`, of at most `limit` bytes (10,000 or more). A file of another kind in its place is replaced."""

    def __init__(self, path: Path, limit: int) -> None:
        require_int("limit", limit, 10_000)
        self.path, self.limit = path, limit
        self.every = 1
        self.blocks: list[tuple[int, int]] | None = (
            None  # (number, bytes) of each block there, in order; None: not read yet
        )

    @property
    def most_block_bytes(self) -> int:
        """The size of the largest block that is kept whole."""
        return (self.limit - 100) // SHARE

    def wants(self, number: int) -> bool:
        """True if a block of this number would be kept now."""
        self._open()
        return number % self.every == 0

    def add(self, number: int, lines: Sequence[bytes]) -> None:
        """Write the block `number`, of JSON objects with a line end each, in place of it and all later ones; unless it is unwanted.

        Lines beyond `most_block_bytes` are left out. Raises `InvalidInput` if the folder cannot be written.
        """
        blocks = self._open()
        earlier = [block for block in blocks if block[0] < number]
        block = _block(number, lines, self.most_block_bytes)
        kept = [*earlier, (number, len(block))] if number % self.every == 0 and block else earlier
        fitting = self.every
        while _size(kept, fitting) > self.limit - 100:
            fitting *= 2
        self.blocks = [item for item in kept if item[0] % fitting == 0]
        if fitting != self.every or len(earlier) < len(blocks) or not blocks:
            self.every = fitting
            self._rewrite({number: block})
        elif kept is not earlier:
            with output_folder(self.path.parent), self.path.open("ab") as file:
                file.write(block)

    def _open(self) -> list[tuple[int, int]]:
        """Find out, once, what an earlier process left; cuts off half a line."""
        if self.blocks is None:
            self.blocks = []
            with output_folder(self.path.parent):
                self._read()
        return self.blocks

    def _read(self) -> None:
        if not self.path.is_file() or self.path.stat().st_size > self.limit:
            return
        content = self.path.read_bytes()
        head = _HEAD_LINE.match(content)
        if head is None:
            return
        sizes: dict[int, int] = {}
        lines = content[head.end() :].splitlines(keepends=True)
        for line in lines:
            found = _BLOCK.match(line)
            if found is None or not line.endswith(b"\n"):
                break
            sizes[int(found[1])] = sizes.get(int(found[1]), 0) + len(line)
        whole = head.end() + sum(sizes.values())
        if whole < len(content):
            with self.path.open("rb+") as file:
                file.truncate(whole)
        self.every, self.blocks = max(int(head[1]), 1), list(sizes.items())

    def _rewrite(self, new: dict[int, bytes]) -> None:
        """Replace the file by one with the blocks of `self.blocks`, atomically; the bytes of `new` ones are given."""
        assert self.blocks is not None
        kept = {number for number, _ in self.blocks}
        old = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            file.write(json.dumps({HEAD: VERSION, "every": self.every}).encode() + b"\n")
            for line in old:
                found = _BLOCK.match(line)
                if found is not None and int(found[1]) in kept - new.keys():
                    file.write(line)
            for number in kept & new.keys():
                file.write(new[number])


def _block(number: int, lines: Sequence[bytes], most: int) -> bytes:
    named = [b'{"block":%d,%s' % (number, line[1:]) for line in lines]
    sizes = accumulate(map(len, named))
    return b"".join(line for line, end in zip(named, sizes, strict=True) if end <= most)


def _size(blocks: Sequence[tuple[int, int]], every: int) -> int:
    return sum(size for number, size in blocks if number % every == 0)
