"""Every fault of `FAULTS` makes the tests that are there to find it fail, and without a fault they pass.

Each runs in a process of its own, on a copy of the checkout with that one change. The slow tier plants every eighth fault and asks
the first of its files; `pytest -m 'slow or long' tests/mutation` plants all of them and asks each file.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("r1_lightning", "tests", "configs", "scripts")
PASSED, FAILED = 0, 1  # pytest's exit codes; 2 and above are collection errors, bad usage and the like

# (fault, test file): each file has to notice by itself.
CASES = [(fault, test) for fault in FAULTS for test in fault.tests]
SLOW = [(fault, fault.tests[0]) for fault in FAULTS[::8]]


def tier(case: tuple[Fault, str]) -> pytest.MarkDecorator:
    return pytest.mark.slow if case in SLOW else pytest.mark.long


def parameter(case: tuple[Fault, str]) -> Any:
    return pytest.param(*case, id=f"{case[0].name}-{Path(case[1]).stem}", marks=tier(case))


def checkout(folder: Path) -> Path:
    """A copy of what a test run needs."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def apply(fault: Fault, root: Path) -> None:
    path = root / "r1_lightning" / fault.file
    path.write_text(mutated(fault, path.read_text(encoding="utf-8")), encoding="utf-8")


def mutated(fault: Fault, text: str) -> str:
    assert text.count(fault.old) == 1, f"{fault.name}: the text stands {text.count(fault.old)} times in {fault.file}"
    return text.replace(fault.old, fault.new)


def run_tests(root: Path, files: list[str]) -> subprocess.CompletedProcess[str]:
    """pytest in `root`, which its `pythonpath` puts before an installed r1_lightning."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "--tb=line", "-p", "no:cacheprovider", *files]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len(FAULTS) >= 10
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1
    assert max(Counter((fault.file, fault.old, fault.new) for fault in FAULTS).values()) == 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_can_be_planted(fault: Fault) -> None:
    """Quick, so that it runs by default: whoever rewrites a line that a fault changes is told at once."""
    text = mutated(fault, (ROOT / "r1_lightning" / fault.file).read_text(encoding="utf-8"))
    ast.parse(text)
    assert fault.old != fault.new and fault.tests and all((ROOT / test).is_file() for test in fault.tests)


@pytest.mark.parametrize(
    "cases",
    [pytest.param(SLOW[:3], marks=pytest.mark.slow), pytest.param(CASES, marks=pytest.mark.long)],
    ids=["three", "all"],
)
def test_without_a_fault_the_tests_pass(cases: list[tuple[Fault, str]], tmp_path: Path) -> None:
    files = sorted({test for _, test in cases})
    outcome = run_tests(checkout(tmp_path), files)
    assert outcome.returncode == PASSED, outcome.stdout[-3000:] + outcome.stderr[-1000:]


@pytest.mark.parametrize(("fault", "test"), [parameter(case) for case in CASES])
def test_the_fault_is_noticed(fault: Fault, test: str, tmp_path: Path) -> None:
    root = checkout(tmp_path)
    apply(fault, root)
    outcome = run_tests(root, [test])
    assert outcome.returncode == FAILED, outcome.stdout[-3000:] + outcome.stderr[-1000:]
    assert re.search(r"\b1 failed\b", outcome.stdout), outcome.stdout[-3000:]
