"""OpenMP's threads spin for a bounded time, unless the environment says how they wait; and torch is loaded after that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.run.config.openmp import SPIN_COUNT, SPIN_COUNT_VARIABLE, WAIT_VARIABLES, bound_spinning


def test_spinning_is_bounded_where_nobody_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAIT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    bound_spinning()
    assert os.environ[SPIN_COUNT_VARIABLE] == str(SPIN_COUNT)
    monkeypatch.delenv(SPIN_COUNT_VARIABLE)


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "ACTIVE")])
def test_a_choice_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for other in WAIT_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    bound_spinning()
    assert {other: os.environ[other] for other in WAIT_VARIABLES if other in os.environ} == {name: value}


def test_commands_bound_spinning_before_torch_is_loaded(tmp_path: Path, repo_root: Path) -> None:
    """A script's own imports must not load torch, or the variable would come too late."""
    program = (
        "import sys, r1_lightning.run.cli as cli; assert 'torch' not in sys.modules; sys.argv = ['train.py', '--help'];"
        "cli.main(); import os; assert 'torch' not in sys.modules; print('spin', os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"spin {SPIN_COUNT}"
