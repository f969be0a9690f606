"""Keyed randomness: pinned numbers and orders that depend on the key alone."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from r1_lightning.tasks.keyed import is_held_out_key, keyed_number, keyed_random, row_of_passes


def test_one_key_in_eight_is_held_out() -> None:
    """Of 20,000 keys 2,500 are expected, with a standard deviation of sqrt(20,000 * 1/8 * 7/8) = 47."""
    held_out = sum(is_held_out_key(f"{a},{b},{c}") for a in range(20) for b in range(20) for c in range(50))
    assert abs(held_out - 2_500) < 200


def test_the_side_of_a_key_never_changes() -> None:
    """Pinned: another hash would silently move problems that earlier models were trained on to the test side."""
    keys = [f"{a},{b},{c}" for a in range(2, 5) for b in range(2, 12) for c in (13, 47)]
    held_out = [key for key in keys if is_held_out_key(key)]
    assert held_out == ["2,2,13", "2,8,47", "3,6,47", "3,9,47", "4,7,47"]
    program = f"from r1_lightning.tasks.keyed import *; print([k for k in {keys} if is_held_out_key(k)])"
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == str(held_out)  # not Python's own hash, which differs from process to process


def test_keyed_random_depends_on_every_part_and_on_nothing_else() -> None:
    def number(*parts: int | str) -> float:
        return keyed_random(*parts).random()

    random.seed(0)
    first = number("train", 1, 2)
    random.seed(99)
    assert number("train", 1, 2) == first
    others = {number("train", 1, 3), number("train", 2, 1), number("train", 2, 2), number("document", 1, 2)}
    assert len(others | {first}) == 5


def test_numbers_and_orders_are_pinned() -> None:
    """Another hash would silently change what models were trained on, and in which order."""
    assert keyed_number("form/0/1") == 14027031160605015982
    assert [row_of_passes("problems/3", 14 + place, 7) for place in range(7)] == [3, 2, 4, 0, 1, 6, 5]
    assert [row_of_passes("chat/3", 14 + place, 7, digest_size=64) for place in range(7)] == [6, 0, 2, 4, 3, 5, 1]


@pytest.mark.parametrize("digest_size", [8, 64])
def test_every_pass_has_each_row_once_in_an_order_of_its_own(digest_size: int) -> None:
    passes = [[row_of_passes("a", 40 * turn + place, 40, digest_size) for place in range(40)] for turn in range(3)]
    assert all(sorted(one) == list(range(40)) for one in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert [row_of_passes("b", place, 40, digest_size) for place in range(40)] != passes[0]
    assert row_of_passes("a", 1, 40, digest_size) == passes[0][1], "random access"
