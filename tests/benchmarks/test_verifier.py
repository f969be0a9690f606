"""The verifier's benchmark on a handful: it measures what it says, half of it right, and nothing twice."""

from __future__ import annotations

import pytest

from benchmarks import verifier
from r1_lightning.rewards.equality.quick import quick_comparison


def test_it_runs_and_prints_both_rates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verifier, "NUMBERS", 20)
    monkeypatch.setattr(verifier, "FORMULAS", 24)
    assert verifier.main(["--rounds", "1", "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "plain numbers:" in shown and "formulas:" in shown and "load before" in shown


def test_formulas_need_algebra_and_come_once() -> None:
    pairs = [
        (completion.text, problem.answer)
        for problem, completion in verifier.formulas(0) + verifier.formulas(verifier.FORMULAS)
    ]
    assert len(set(pairs)) == len(pairs)
    answers = [(text.split("<answer> ")[1].split(" </answer>")[0], reference) for text, reference in pairs]
    quick = [quick_comparison(*pair) for pair in answers]
    assert sum(comparison is not None for comparison in quick) <= len(quick) / 6  # unequal intervals of equal form
