"""A test that a person types by name runs, whatever its tier; of what else they type, the last line says what was left out.

Each case is a pytest of its own in a folder with four tests, with this project's default tier.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.tiers import DEFAULT_TIER

CONFTEST = """
from tests.support.tiers import Tiers
def pytest_configure(config):
    config.pluginmanager.register(Tiers(config), "tiers")
"""
TESTS = """
import pytest
def test_quick(): assert True
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_slow(n): assert n
@pytest.mark.long
def test_long(): assert True
def test_slowest(): assert True
"""
INI = f"[pytest]\naddopts = -q -m '{DEFAULT_TIER}' -p no:cacheprovider\nmarkers =\n    slow: x\n    long: x\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    for name, text in {"conftest.py": CONFTEST, "tests/test_a.py": TESTS, "pytest.ini": INI}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def lines(project: Path, repo_root: Path, *arguments: str) -> list[str]:
    """What pytest prints, below the dots, without the seconds."""
    command = [sys.executable, "-m", "pytest", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    return [line.split(" in ")[0] for line in done.stdout.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["2 passed, 3 deselected"]),  # as ever: nobody asked for more
        (["-m", "slow"], ["2 passed, 3 deselected"]),  # two copies of one test
        (["tests/test_a.py::test_slow"], ["2 passed"]),  # both copies, and not test_slowest
        (["tests/test_a.py::test_slow[2]", "tests/test_a.py::test_long"], ["2 passed"]),
        (
            ["tests/test_a.py"],
            [
                "left out by tier: 2 slow, 1 long. All of it: pytest -n 0 -m '' tests/test_a.py",
                "2 passed, 3 deselected",
            ],
        ),
        (["-m", "", "tests/test_a.py"], ["5 passed"]),
    ],
    ids=["all", "tier", "name", "copy", "file", "no_tier"],
)
def test_what_is_typed_by_name_runs_and_what_is_left_out_is_said(
    project: Path, repo_root: Path, arguments: list[str], said: list[str]
) -> None:
    assert lines(project, repo_root, *arguments) == said


def test_the_workers_tell_what_they_left_out(project: Path, repo_root: Path) -> None:
    """Under pytest-xdist only workers collect, and pytest itself says nothing of what they deselect."""
    typed = ["-p", "xdist", "-n", "1", "tests/test_a.py"]
    said = lines(project, repo_root, *typed)
    assert "left out by tier: 2 slow, 1 long. All of it: pytest -n 0 -m '' tests/test_a.py" in said
    assert said[-1] == "2 passed"


def test_it_is_the_tier_of_the_configuration(repo_root: Path) -> None:
    options = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    addopts = options["ini_options"]["addopts"]
    assert addopts[addopts.index("-m") + 1] == DEFAULT_TIER
