"""The helper itself: by hand, and it refuses what is farther off."""

from __future__ import annotations

from tests.support.shares import near


def test_by_hand() -> None:
    # p = 0.2, n = 400: sqrt(0.16 / 400) = 0.02, four of them 0.08.
    assert near(0.2, 400) == 0.279 and near(0.2, 400) == 0.121
    assert near(0.2, 400) != 0.281 and near(0.2, 400) != 0.119
    assert near(0.0, 400) == 0.0 and near(0.0, 400) != 1e-9 and near(1.0, 400) != 0.999
