"""Faults planted in small real runs are each named by a rule or by the band, and ten healthy runs break none."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.review import expected
from r1_lightning.review.expected import band_of_runs
from r1_lightning.review.verdict import review
from tests.support.faulty_runs import PRETRAINING_FAULTS, RL_FAULTS, Plan, run_pretraining, run_rl

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", RL_FAULTS)
def test_a_fault_in_rl_is_named(tmp_path: Path, fault: str) -> None:
    plan, rules = RL_FAULTS[fault]
    found = review(run_rl(tmp_path, plan()), at_work=True)
    assert {one.name for one in found.advisories} & rules, (found.verdict.sentence, found.advisories)
    assert found.verdict.state in ("failed", "no band") and found.verdict.from_step is not None


def test_faults_in_pretraining_are_named_by_the_band_of_healthy_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds 0 to 2 make the band, seed 3 lies in it."""
    healthy = [run_pretraining(tmp_path / f"seed{seed}", seed=seed) for seed in range(4)]
    for folder in healthy:
        assert review(folder, at_work=True).verdict.state == "healthy"
        (folder / "artefact.json").write_text("{}")  # as a finished run has it
    band = band_of_runs("sums", healthy[:3])
    monkeypatch.setattr(expected, "shipped", lambda: (band,))
    assert review(healthy[3]).verdict.state == "as expected"
    for number, (fault, settings) in enumerate(PRETRAINING_FAULTS.items()):
        found = review(run_pretraining(tmp_path / f"fault{number}", **settings), at_work=True)
        assert found.verdict.state == "differs" and found.outside[0].name == "train/loss", (fault, found.verdict)


@pytest.mark.parametrize("seed", range(6))
def test_a_healthy_run_of_rl_breaks_no_rule(tmp_path: Path, seed: int) -> None:
    assert review(run_rl(tmp_path, Plan(), seed), at_work=True).verdict.state == "healthy"
