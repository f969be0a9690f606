"""What is installed: the tested versions lie within the promised ranges, and CI runs the line that README prints."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import r1_lightning
from tests.architecture.house import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]


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


def test_pins_name_no_local_build():
    assert [package for package, version in PINS.items() if version.local] == []


def test_extras_are_those_the_house_promises():
    assert set(PROJECT["optional-dependencies"]) == {"test", "fp8", "lora", "tasks", "vllm"}


def test_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", r1_lightning.__version__)


def test_ci_runs_the_line_that_readme_prints():
    (line,) = re.findall(r'^readonly readme_line="(.*)"$', (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    assert line == "pip install -c constraints.txt -e '.[test]' && pytest"
    assert line in (ROOT / "README.md").read_text(encoding="utf-8")


def test_licence_is_apache_2_complete():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert text.lstrip().startswith("Apache License\n")
    assert "END OF TERMS AND CONDITIONS" in text
