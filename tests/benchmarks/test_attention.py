"""The benchmark of attention by length: memory of a row grows in proportion to its tokens."""

from __future__ import annotations

import csv

import pytest
import torch

from benchmarks import attention
from r1_lightning.model.masked_attention import DenseRows, DocumentRows

ROOT = attention.ROOT


def test_rows_full_of_documents() -> None:
    assert attention.documents(2, 7, 3).tolist() == [[1, 1, 1, 2, 2, 2, 3]] * 2


def test_both_sides_of_a_time_are_measured_alternately(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pair is a warm-up: medians of 10, 30, 20 ms beside 5, 5, 10 ms; ratios 2, 6, 2."""
    given = iter([9.0, 9.0, 0.01, 0.005, 0.03, 0.005, 0.02, 0.01] * 2)
    asked = []

    def seconds_of(kind: object, *setting: object) -> float:
        asked.append((kind, *setting))
        return next(given)

    monkeypatch.setattr(attention, "TIMED", ((64, 16),))
    monkeypatch.setattr(attention, "seconds_of", seconds_of)
    rows = attention.times(3)
    assert [row["type"] for row in rows] == ["float32", "bfloat16"]
    assert rows[0] == {
        "type": "float32",
        "row_tokens": 64,
        "document_tokens": 16,
        "dense_ms": 20.0,
        "by_document_ms": 5.0,
        "dense_over_by_document": 2.0,
    }
    assert asked[:2] == [(kind, torch.float32, 64, 16) for kind in (DenseRows, DocumentRows)]


def test_a_time_is_that_of_real_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "TIMED_TOKENS", 64)
    for kind in (DenseRows, DocumentRows):
        assert 0 < attention.seconds_of(kind, torch.bfloat16, 32, 16) < 10


@pytest.mark.slow
def test_the_peak_of_a_row_is_linear_in_its_tokens() -> None:
    """8,192 tokens more take twice what 4,096 more take (four times if memory were quadratic), beyond Python and torch.

    A process keeps some 20 MB more or less from run to run: 113 to 149 MB and 278 to 299 MB were seen.
    """
    rows = attention.peaks((4096, 8192, 16_384), ["one document"])
    peaks = [row["peak_mb"] for row in rows]
    first, second = peaks[1] - peaks[0], peaks[2] - peaks[1]
    assert 20 < first < 268, peaks  # a matrix of 8,192 x 8,192 alone has 268 MB
    assert second == pytest.approx(2 * first, rel=0.5), peaks
    assert peaks[2] - peaks[0] < 537, peaks  # half of one matrix of 16,384 x 16,384


def test_the_committed_table_is_linear() -> None:
    """From 4,096 to 32,768 tokens every token costs the same within a quarter; the dense mask's tokens cost ever more."""
    with next((ROOT / "benchmarks" / "results").glob("attention_memory_*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for side in ("one document", "documents of 1,024"):
        peak = {int(row["tokens"]): float(row["peak_mb"]) for row in rows if row["side"] == side}
        assert list(peak) == list(attention.LENGTHS)
        per_token = [(peak[2 * n] - peak[n]) / n for n in (4096, 8192, 16_384)]
        assert max(per_token) <= 1.25 * min(per_token)
    dense = {int(row["tokens"]): float(row["peak_mb"]) for row in rows if row["side"] == "dense mask"}
    assert dense[8192] > 3 * dense[4096]
