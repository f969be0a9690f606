"""The benchmark of emulated FP8: the sides take turns, and one of them computes in FP8."""

from __future__ import annotations

import pytest

from benchmarks import fp8_emulation
from benchmarks.recompute import Work
from r1_lightning.model.backbone import DeepSeekBackbone


def test_sides_alternate_and_the_first_pair_is_a_warm_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pairs of 1 and 2, 2 and 3, 4 and 12 seconds: medians 2 and 3, ratios 2, 1.5 and 3."""
    given, asked = iter([9.0, 9.0, 1.0, 2.0, 2.0, 3.0, 4.0, 12.0]), []

    def step(model: DeepSeekBackbone, work: Work) -> float:
        asked.append(model.precision.name)
        return next(given)

    monkeypatch.setattr(fp8_emulation, "WORKS", {"miniature": Work(width=32, layers=2, rows=2, tokens=16)})
    monkeypatch.setattr(fp8_emulation, "step", step)
    assert fp8_emulation.main(["--pairs", "3", "--only", "miniature"]) == 0
    assert asked == ["bf16", "fp8_emulate_bf16"] * 4
    assert "miniature: BF16 2.00 s, FP8 emulated 3.00 s, ratio 2.00 (1.50 to 3.00)" in capsys.readouterr().out


def test_no_pairs_are_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        fp8_emulation.main(["--pairs", "0"])


def test_a_rollout_is_measured_on_both_sides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fp8_emulation, "WORKS", {"miniature": Work(width=32, layers=2, rows=2, tokens=16)})
    monkeypatch.setattr(fp8_emulation, "NEW_TOKENS", 2)
    assert fp8_emulation.main(["--pairs", "1", "--only", "sampling"]) == 0
    assert "\nsampling: BF16 " in capsys.readouterr().out
