"""Packing by hand and by reconstruction: every token once, positions from 0, no row too long, little room wasted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_lightning.rollout.packing import OPEN_ROWS, PackedRows, cut_long, pack_lengths
from r1_lightning.types.errors import InvalidInput

PAD = 99


@pytest.mark.parametrize(
    ("lengths", "row_tokens", "rows"),
    [
        ([5, 4, 3, 2], 7, [[0, 3], [1, 2]]),  # 5 leaves 2; 4 opens a row and leaves 3; 3 fills that; 2 fills the first
        ([3, 6, 2], 8, [[0], [1, 2]]),  # 2 fits both (room 5 and 2): into the fuller one
        ([2, 2, 2], 6, [[0, 1, 2]]),
        ([4, 4], 4, [[0], [1]]),
        ([1], 1, [[0]]),
        ([], 4, []),
    ],
)
def test_pack_lengths_by_hand(lengths: list[int], row_tokens: int, rows: list[list[int]]) -> None:
    assert pack_lengths(lengths, row_tokens) == rows


def test_only_a_few_rows_stay_open() -> None:
    """Rows of 10: 17 documents of 6 leave 4 in each of 17 rows, one more than stay open, and the first is closed."""
    rows = pack_lengths([6] * (OPEN_ROWS + 1) + [4] * (OPEN_ROWS + 1), 10)
    assert len(rows) == OPEN_ROWS + 2
    assert [len(row) for row in rows] == [1, *[2] * OPEN_ROWS, 1]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="document 1 has 9 tokens, more than a row of 8"):
        pack_lengths([8, 9], 8)
    with pytest.raises(InvalidInput, match="row_tokens=0 is not allowed"):
        pack_lengths([], 0)


def test_cut_long_by_hand() -> None:
    assert cut_long([[1, 2, 3, 4, 5], [], [6], [7, 8]], 2) == [[1, 2], [3, 4], [5], [6], [7, 8]]


def test_packed_rows_by_hand() -> None:
    packed = PackedRows([[11, 12, 13], [21, 22, 23, 24], [31]], 5, PAD)
    assert packed.token_ids.tolist() == [[11, 12, 13, PAD, PAD], [21, 22, 23, 24, 31]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 0]]
    assert packed.document_ids.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 2]]
    assert packed.spans == [(0, 0), (1, 0), (1, 4)]
    assert len(packed) == 2


def test_a_batch_is_some_rows_as_int64() -> None:
    packed = PackedRows([[1, 2], [3, 4], [5]], 2, PAD)
    batch = packed.batch([2, 0])
    assert batch.token_ids.tolist() == [[5, PAD], [1, 2]]
    assert batch.document_ids.tolist() == [[1, 0], [1, 1]]
    assert {tensor.dtype for tensor in (batch.token_ids, batch.position_ids, batch.document_ids)} == {torch.int64}
    assert packed.batch(slice(1, 2)).token_ids.tolist() == [[3, 4]]
    batch.token_ids.zero_()
    assert packed.token_ids[0].tolist() == [1, 2]  # a batch is a copy: what a stage does to it stays its own


@settings(max_examples=60)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=80), st.integers(12, 30))
def test_every_token_exactly_once(lengths: list[int], row_tokens: int) -> None:
    """Token ids are numbered through, so that a token that is lost, doubled or displaced is seen."""
    starts = np.cumsum([0, *lengths])
    documents = [list(range(a, b)) for a, b in pairwise(starts)]
    packed = PackedRows(documents, row_tokens, pad_id=-1)
    is_token = packed.document_ids > 0
    assert sorted(packed.token_ids[is_token].tolist()) == list(range(sum(lengths)))
    assert set(packed.token_ids[~is_token].tolist()) <= {-1}
    assert packed.position_ids[~is_token].sum() == 0
    for document, (row, column) in zip(documents, packed.spans, strict=True):
        place = slice(column, column + len(document))
        assert packed.token_ids[row, place].tolist() == document
        assert packed.position_ids[row, place].tolist() == list(range(len(document)))
        assert len(set(packed.document_ids[row, place].tolist())) == 1
    for row in packed.document_ids:  # 1, 1, 2, 2, 2, 3, 0, 0: numbered from 1, padding last
        numbers = [number for number in row.tolist() if number]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(1, max(numbers) + 1))
        assert row[: len(numbers)].tolist() == numbers


def fill_rate(lengths: list[int], row_tokens: int) -> float:
    rows = pack_lengths(lengths, row_tokens)
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    assert max(sum(lengths[document] for document in row) for row in rows) <= row_tokens
    return sum(lengths) / (row_tokens * len(rows))


def test_little_room_is_wasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of 16 to 48 tokens in rows of 96: 0.94 of all places hold a token, and clearly less with one open row."""
    lengths = np.random.default_rng(0).integers(16, 49, size=3_000).tolist()
    best_fit = fill_rate(lengths, 96)
    assert best_fit > 0.935
    monkeypatch.setattr("r1_lightning.rollout.packing.OPEN_ROWS", 1)
    assert fill_rate(lengths, 96) < best_fit - 0.05
    assert fill_rate([32] * 300, 96) == 1.0


def test_trimmed_rows_end_with_the_longest() -> None:
    """Rows of 8 with documents of 3, 2 and 4: the first row holds 3 + 2 = 5 tokens, the second 4; three columns go."""
    packed = PackedRows([[1, 2, 3], [4, 5], [6, 7, 8, 9]], 8, PAD)
    tokens = packed.trimmed()
    assert tokens.token_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, PAD]]
    assert tokens.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert tokens.document_ids.tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 1, 0]]
    assert torch.equal(packed.batch(slice(None)).token_ids[:, :5], tokens.token_ids)
