"""Adds a copy of configs/ to a built package; everything else stands in pyproject.toml.

configs/ lies beside the package in a checkout, where people read and edit it. An editable installation uses it there; a wheel holds
a copy as r1_lightning/configs/ (`r1_lightning/run/config/compose.py:config_folder`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = Path(__file__).resolve().parent / "configs"
OWN = "local*"  # settings of one machine, which git ignores too


class BuildWithConfigs(build_py):
    """`build_py`, and then the configurations."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copy = Path(self.build_lib, "r1_lightning", "configs")
            shutil.rmtree(copy, ignore_errors=True)  # of an earlier build: it may hold options that are gone
            shutil.copytree(CONFIGS, copy, ignore=lambda folder, names: _own(folder))


def _own(folder: str) -> list[str]:
    """What stays out of the copy: at the top of configs/, what `OWN` names; configs/launcher/local.yaml is ours."""
    return [path.name for path in Path(folder).glob(OWN)] if Path(folder) == CONFIGS else []


setup(cmdclass={"build_py": BuildWithConfigs})
