"""Which tier a test has to be in to run, as a plugin of pytest that tests/conftest.py registers.

pyproject.toml selects the default tier by `-m "not slow and not long"`. Left to itself pytest applies this to every test, also
to the one that a person has typed by name, and says no more than "1 deselected" (nothing at all under pytest-xdist). Here:

- a test typed by its node id (`tests/x.py::test_y`) runs, whatever its tier;
- of a typed file or folder the default tier runs, and the last line says what was left out and how to run it;
- any other `-m` is pytest's own business: `-m slow`, `-m long`, `-m ''`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

DEFAULT_TIER = "not slow and not long"  # as in addopts
TIERS = ("slow", "long")
LEFT_OUT = "r1_tiers_left_out"  # how a worker of pytest-xdist names it when it tells its controller


class Tiers:
    """Selects items by tier in place of pytest's `-m`, where that is the default one, and keeps count."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.is_typed = config.args_source == pytest.Config.ArgsSource.ARGS
        self.left_out: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if config.option.markexpr != DEFAULT_TIER:
            return
        config.option.markexpr = ""  # chosen here, so that pytest does not choose again
        left_out = {id(item): tier for item in items if (tier := _tier(item)) and not self._is_named(item)}
        self.left_out = Counter(left_out.values())
        if left_out:
            config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
            items[:] = [item for item in items if id(item) not in left_out]

    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput[LEFT_OUT] = dict(self.left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.left_out = self.left_out or Counter(getattr(node, "workeroutput", {}).get(LEFT_OUT, {}))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.is_typed and self.left_out:
            terminalreporter.write_line(said(self.left_out, self.config.args), yellow=True)

    def _is_named(self, item: pytest.Item) -> bool:
        folder = self.config.invocation_params.dir
        return any(_names(arg, folder, item.path, item.nodeid) for arg in self.config.args)


def said(left_out: Counter[str], args: Sequence[str]) -> str:
    """One line: how many tests of which tier were left out, and the command that runs all that was typed."""
    counts = ", ".join(f"{left_out[tier]} {tier}" for tier in TIERS if left_out[tier])
    return f"left out by tier: {counts}. All of it: pytest -n 0 -m '' {' '.join(args)}"


def _tier(item: pytest.Item) -> str | None:
    return next((tier for tier in TIERS if item.get_closest_marker(tier)), None)


def _names(arg: str, folder: Path, path: Path, nodeid: str) -> bool:
    """Whether `arg`, typed in `folder`, is the node id of an item or of the function or class that it belongs to."""
    file, _, name = arg.partition("::")
    own = nodeid.partition("::")[2]
    return bool(name) and (folder / file).resolve() == path.resolve() and _begins(own, name)


def _begins(own: str, name: str) -> bool:
    return own == name or own.startswith((f"{name}[", f"{name}::"))
