"""DAPO's overlong punishment at its published numbers and its corners."""

from __future__ import annotations

import pytest

from r1_lightning.rewards.length import OverlongPunishment
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem

PROBLEM = Problem("", "", "")


def score(n_tokens: int, finished: bool = True, max_tokens: int = 20_480, cache_tokens: int = 4_096) -> float:
    return OverlongPunishment(max_tokens, cache_tokens)(PROBLEM, Completion("", n_tokens, finished)).score


@pytest.mark.parametrize(
    ("n_tokens", "expected"),
    # L_max - L_cache = 16,384: free until there, then -1/4096 per token, -1/2 half-way, -1 at and after L_max.
    [(1, 0.0), (16_384, 0.0), (16_385, -1 / 4096), (18_432, -0.5), (20_480, -1.0), (20_481, -1.0)],
)
def test_the_papers_numbers(n_tokens: int, expected: float) -> None:
    assert score(n_tokens) == pytest.approx(expected, abs=1e-12)


def test_what_was_cut_off_counts_as_too_long() -> None:
    assert score(5, finished=False) == -1.0


def test_it_never_rises_with_length() -> None:
    scores = [score(n, max_tokens=20, cache_tokens=8) for n in range(1, 30)]
    assert scores == sorted(scores, reverse=True) and min(scores) == -1.0 and max(scores) == 0.0


@pytest.mark.parametrize(
    ("settings", "field"), [((0, 1), "max_tokens=0"), ((8, 0), "cache_tokens=0"), ((8, 9), "cache_tokens=9")]
)
def test_bad_settings_are_named(settings: tuple[int, int], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"overlong\\.{field}"):
        OverlongPunishment(*settings)
