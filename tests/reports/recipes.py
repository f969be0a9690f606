"""The recipes of the checkout as modules, for their tests: recipes lie outside the package and are loaded by their path."""

from __future__ import annotations

from types import ModuleType

from r1_lightning.run.commands.report import load
from tests.architecture.house import ROOT


def recipe_module(name: str) -> ModuleType:
    """The module of reports/`name`/recipe.py."""
    return load(ROOT / "reports" / name / "recipe.py")
