"""The forced lengths of the weak-scaling benchmark; what the processes do is rehearsed in `test_weak_scaling.py`."""

from __future__ import annotations

import pytest

from benchmarks.weak_scaling_worker import lengths_of


def test_lengths_are_of_the_rollout_and_a_third_of_the_limit_in_the_mean() -> None:
    """The mean of min(x, 1) for x exponential of mean s is s (1 - exp(-1 / s)): 0.308 over s from 0.165 to 0.495."""
    lengths = lengths_of(3, 400, 16, 1000)
    assert lengths.shape == (400, 16) and lengths.min() >= 1 and lengths.max() == 1000
    assert lengths.float().mean().item() / 1000 == pytest.approx(0.308, abs=0.02)
    assert lengths.equal(lengths_of(3, 400, 16, 1000)) and not lengths.equal(lengths_of(4, 400, 16, 1000))
