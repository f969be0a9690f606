"""The sandbox's benchmark on a handful: it measures what it says, half of it right, and nothing twice."""

from __future__ import annotations

import pytest

from benchmarks import sandbox
from r1_lightning.rewards.sandbox.sandbox import Isolation


@pytest.mark.usefixtures("isolated")
def test_it_runs_and_prints_both_rates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sandbox, "PROGRAMS", 4)
    monkeypatch.setattr(sandbox, "CASES", 3)
    assert sandbox.main(["--rounds", "1", "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "programs of one case:" in shown and "cases, 3 a program:" in shown and "load before" in shown


def test_no_program_comes_twice() -> None:
    pairs = sandbox.programs(0, 6, 2) + sandbox.programs(6, 6, 2)
    assert len({completion.text for _, completion in pairs}) == len(pairs)


def test_without_isolation_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sandbox, "isolation", lambda: Isolation(False, "there is no isolation here"))
    assert sandbox.main([]) == 0 and capsys.readouterr().out == "not measured: there is no isolation here\n"
