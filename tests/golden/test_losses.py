"""Ten tiny steps of each stage give the numbers of losses.txt. `losses.py` says how they were made and how to renew them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.losses import COLUMNS, STEPS, steps

# Another CPU sums in another order: 3.5e-6 of a loss was the most that AVX2, SSE and no vectors at all changed against
# AVX-512. The absolute part is for the KL, which is 0 after a refresh and small in between.
RELATIVE, ABSOLUTE = 1e-5, 1e-7


def golden() -> dict[str, list[tuple[float, ...]]]:
    """losses.txt by stage."""
    text = (Path(__file__).parent / "losses.txt").read_text(encoding="utf-8")
    rows: dict[str, list[tuple[float, ...]]] = {stage: [] for stage in COLUMNS}
    for line in text.splitlines():
        if not line.startswith("#"):
            stage, step, *values = line.split()
            assert int(step) == len(rows[stage])
            rows[stage].append(tuple(map(float, values)))
    return rows


def differences(found: list[tuple[float, ...]], expected: list[tuple[float, ...]], names: tuple[str, ...]) -> list[str]:
    """The numbers out of tolerance, each as a line."""
    return [
        f"step {step}, {name}: {value!r}, expected {wanted!r}"
        for step, (row, target) in enumerate(zip(found, expected, strict=True))
        for name, value, wanted in zip(names, row, target, strict=True)
        if not abs(value - wanted) <= RELATIVE * abs(wanted) + ABSOLUTE
    ]


@pytest.mark.parametrize("stage", COLUMNS)
def test_the_numbers_of_ten_steps(stage: str) -> None:
    expected = golden()[stage]
    assert len(expected) == STEPS
    assert differences(steps(stage), expected, COLUMNS[stage]) == []


def test_a_number_just_out_of_tolerance_is_found() -> None:
    expected = golden()["pretrain"]
    for column, name in enumerate(COLUMNS["pretrain"]):
        spoiled = [list(row) for row in expected]
        spoiled[7][column] *= 1 + 2e-5
        found = differences([tuple(row) for row in spoiled], expected, COLUMNS["pretrain"])
        assert len(found) == 1 and found[0].startswith(f"step 7, {name}: ")


def test_nan_is_found() -> None:
    expected = golden()["grpo"]
    assert len(differences([(float("nan"),) * 3, *expected[1:]], expected, COLUMNS["grpo"])) == 3
