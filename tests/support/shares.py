"""What a share may be off by, where it was counted among so many independent draws."""

from __future__ import annotations

import math
from typing import Any

import pytest

DEVIATIONS = 4  # one right program in 16,000 is off by more; and draws that are keyed never change


def near(share: float, draws: int) -> Any:
    """`share` within four standard deviations, sqrt(p (1 - p) / n) each; a share of 0 or 1 has none."""
    return pytest.approx(share, abs=DEVIATIONS * math.sqrt(share * (1 - share) / draws), rel=0)
