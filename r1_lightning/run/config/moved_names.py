"""Classes that moved to another module: a fingerprint counts the first name, and a configuration may use every name since.

A configuration names a class by its place (`_target_: r1_lightning.tasks.arithmetic.ArithmeticTask`), and a fingerprint covers
the configuration. Without this table a moved class would be another class: its runs would be made again, and their stored
configurations could not be read. `MOVES` holds one row per move, the newest last; a row is never changed or removed, and a name
that was left is not given to another class.

`use_present_names` is called wherever a configuration enters: composed from options and the command line, or read from an artefact.
So the rest of the program sees present names only, and what may be imported is decided by those (`targets`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

TARGET = "_target_"
MOVES: tuple[tuple[str, str], ...] = (  # the name that was left, the name after the move
    ("r1_lightning.tasks.comparison.ComparisonTask", "r1_lightning.tasks.logic.ComparisonTask"),
)


class MovedNames:
    """The names of classes through a sequence of moves, each from one dotted name to the next."""

    def __init__(self, moves: Sequence[tuple[str, str]]) -> None:
        self._next = dict(moves)
        self._previous = {after: before for before, after in moves}

    def present(self, name: str) -> str:
        """The place of the class today, from any name it has had; other names as they are."""
        return _last(name, self._next)

    def first(self, name: str) -> str:
        """The name that counts in fingerprints, from any name of the class; other names as they are."""
        return _last(name, self._previous)


def _last(name: str, step: Mapping[str, str]) -> str:
    while name in step:
        name = step[name]
    return name


NAMES = MovedNames(MOVES)


def use_present_names(config: DictConfig | ListConfig, names: MovedNames = NAMES) -> None:
    """Replace every `_target_` in `config` that is a former name, in place. Interpolations are left as they are."""
    for key in list(config.keys()) if isinstance(config, DictConfig) else range(len(config)):
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        value = config[key]
        if isinstance(value, (DictConfig, ListConfig)):
            use_present_names(value, names)
        elif key == TARGET and isinstance(value, str) and names.present(value) != value:
            config[key] = names.present(value)


def with_names(node: Any, rename: Callable[[str], str]) -> Any:
    """Plain values as `node`, with every `_target_` renamed: by `NAMES.first` for a fingerprint, by `NAMES.present` for people."""
    if isinstance(node, dict):
        return {
            key: rename(value) if key == TARGET and isinstance(value, str) else with_names(value, rename)
            for key, value in node.items()
        }
    return [with_names(value, rename) for value in node] if isinstance(node, list) else node
