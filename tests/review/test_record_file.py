"""The bounded file of records: evenly spaced blocks below its limit, and the same bytes however often it was interrupted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from r1_lightning.review.record_file import RecordFile
from r1_lightning.types.errors import InvalidInput

LIMIT = 10_000


def block(number: int, size: int = 900) -> list[bytes]:
    """Two lines of together about `size` bytes."""
    return [json.dumps({"n": number, "x": "y" * (size // 2)}).encode() + b"\n"] * 2


def numbers(path: Path) -> list[int]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert rows[0].keys() == {"records", "every"} and all(row["block"] == row["n"] for row in rows[1:])
    return list(dict.fromkeys(row["n"] for row in rows[1:]))


def filled(folder: Path, blocks: int, sizes: int = 900, limit: int = LIMIT) -> Path:
    folder.mkdir(exist_ok=True)
    file = RecordFile(folder / "r.jsonl", limit)
    for number in range(blocks):
        if file.wants(number):
            file.add(number, block(number, sizes))
    return file.path


def test_all_blocks_are_kept_while_they_fit(tmp_path: Path) -> None:
    path = filled(tmp_path, 5)
    assert numbers(path) == [0, 1, 2, 3, 4]
    assert path.read_bytes().splitlines()[0] == b'{"records": 1, "every": 1}'
    assert path.read_bytes().splitlines()[1].startswith(b'{"block":0,"n": 0,')


@pytest.mark.parametrize("blocks", [10, 11, 12, 40, 100, 333])
def test_the_file_stays_below_its_limit_and_its_blocks_evenly_spaced(tmp_path: Path, blocks: int) -> None:
    path = filled(tmp_path, blocks)
    kept = numbers(path)
    every = json.loads(path.read_bytes().splitlines()[0])["every"]
    assert path.stat().st_size <= LIMIT and kept == list(range(0, blocks, every))
    # A block takes 2 x (450 + about 30) bytes, so 10 fit and at least 5 are left after every second one went.
    assert 5 <= len(kept) <= 10


def test_it_is_the_smallest_power_of_two_that_fits(tmp_path: Path) -> None:
    sizes = [len(b"".join(block(number))) + 2 * len(b'"block":%d,' % number) for number in range(100)]
    path = filled(tmp_path, 100)
    fitting = next(every for every in (1, 2, 4, 8, 16, 32) if sum(sizes[::every]) <= LIMIT - 100)
    assert numbers(path) == list(range(0, 100, fitting)) and fitting == 16  # 7 blocks of about 960 bytes


@pytest.mark.parametrize("seed", range(20))
def test_an_interrupted_run_leaves_the_same_bytes(tmp_path: Path, seed: int) -> None:
    """Killed at any time, also within a write, and gone on from any earlier block: as if nothing had happened."""
    draw = random.Random(seed)
    (tmp_path / "parts").mkdir()
    path, done = tmp_path / "parts" / "r.jsonl", 0
    for _ in range(6):
        file = RecordFile(path, LIMIT)
        first, done = draw.randint(0, done), draw.randint(done, 60)
        for number in range(first, done):
            if file.wants(number):
                file.add(number, block(number, 100 + 700 * (number % 3)))
        if path.exists() and draw.random() < 0.7:  # a kill within the last write
            content = path.read_bytes()
            path.write_bytes(content[: len(content) - draw.randint(1, 300)] if len(content) > 1_000 else content)
            done = max(done - 9, 0)  # what was cut off is taken again
    file = RecordFile(path, LIMIT)
    for number in range(done, 60):
        if file.wants(number):
            file.add(number, block(number, 100 + 700 * (number % 3)))
    whole = RecordFile(tmp_path / "whole.jsonl", LIMIT)
    for number in range(60):
        if whole.wants(number):
            whole.add(number, block(number, 100 + 700 * (number % 3)))
    assert path.read_bytes() == whole.path.read_bytes()


def test_a_block_that_is_added_again_replaces_itself_and_all_later_ones(tmp_path: Path) -> None:
    path = filled(tmp_path, 5)
    RecordFile(path, LIMIT).add(2, block(2, 100))
    assert numbers(path) == [0, 1, 2] and len(path.read_bytes().splitlines()) == 1 + 2 * 3
    RecordFile(path, LIMIT).add(0, block(0, 100))
    assert numbers(path) == [0]


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b'{"records": 2, "every": 1}\n', b"\xff" * 500, b'{"records": 1, "every": 1}\nx\n']
)
def test_another_file_in_its_place_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.jsonl").write_bytes(content)
    assert numbers(filled(tmp_path, 2)) == [0, 1]


def test_a_file_above_the_limit_is_replaced_unread(tmp_path: Path) -> None:
    path = filled(tmp_path, 9)
    path.write_bytes(path.read_bytes() + b"x" * LIMIT)
    assert numbers(filled(tmp_path, 2)) == [0, 1]


def test_a_block_never_takes_more_than_its_share(tmp_path: Path) -> None:
    # 1,237 bytes; a line with its block's number takes 9 + 5 + 11 + 600 + 3 + 11: one fits, two do not.
    file = RecordFile(tmp_path / "r.jsonl", LIMIT)
    assert file.most_block_bytes == 1_237
    file.add(0, block(0, 1_200))
    assert len(file.path.read_bytes().splitlines()) == 2
    file.add(1, [b'{"x": "' + b"y" * 5_000 + b'"}\n'])
    assert numbers_of_blocks(file.path) == [0]


def numbers_of_blocks(path: Path) -> list[int]:
    return [json.loads(line)["block"] for line in path.read_bytes().splitlines()[1:]]


def test_a_small_limit_and_a_lost_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="limit=9999"):
        RecordFile(tmp_path / "r.jsonl", 9_999)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        RecordFile(tmp_path / "file" / "r.jsonl", LIMIT).add(0, block(0))
