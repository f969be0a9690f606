"""The benchmark of activation recompute: the two sides take turns, and do the same work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import recompute
from benchmarks.recompute import Work
from r1_lightning.model.backbone import DeepSeekBackbone

TINY = Work(width=32, layers=2, rows=2, tokens=16)


def test_both_sides_have_the_same_gradients() -> None:
    kept, again = (TINY.backbone(side) for side in (False, True))
    assert recompute.step(kept, TINY) > 0 and recompute.step(again, TINY) > 0
    assert again.recompute and not kept.recompute
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad)


def test_sides_alternate_and_the_first_pair_is_a_warm_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pairs of 1 and 1.5, 2 and 2, 4 and 5 seconds: medians 2 and 2, ratios 1.5, 1 and 1.25."""
    given, asked = iter([9.0, 9.0, 1.0, 1.5, 2.0, 2.0, 4.0, 5.0]), []

    def step(model: DeepSeekBackbone, work: Work) -> float:
        asked.append(model.recompute)
        return next(given)

    monkeypatch.setattr(recompute, "WORKS", {"miniature": TINY})
    monkeypatch.setattr(recompute, "step", step)
    monkeypatch.setattr(recompute, "peak", lambda name, side: 300.4 - 100 * side)
    assert recompute.main(["--pairs", "3", "--only", "miniature", "--out", str(tmp_path / "rows.csv")]) == 0
    assert asked == [False, True] * 4
    assert (tmp_path / "rows.csv").read_text().splitlines() == [
        "work,width,layers,rows,tokens,kept_s,recomputed_s,time_ratio,least_ratio,most_ratio,kept_mb,recomputed_mb",
        "miniature,32,2,2,16,2.0,2.0,1.25,1.0,1.5,300,200",
    ]
    assert "load before" in capsys.readouterr().out


def test_no_pairs_are_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        recompute.main(["--pairs", "0"])


@pytest.mark.slow
def test_the_peak_is_that_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The miniature's step keeps some 100 MB that recomputing does not; Python and torch alone take more than 100."""
    kept, again = (recompute.peak("miniature", side) for side in (False, True))
    assert 100 < again < kept
