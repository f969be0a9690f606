"""What else a run's folder says: its settings, its final measures, whether it is complete. Every file is a stranger's file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from r1_lightning.artefacts.file_names import DECIDING_GROUPS, MARKER

MAX_BYTES = 2**20  # of artefact.json; ours have a few KB
MAX_YAML_BYTES = 2**17  # of config.yaml; ours have 5 KB, and PyYAML takes 2 to 3 s for as much as this
MAX_BRACKETS = 1000  # of YAML in flow style: its parser takes time by the square of their depth
MAX_LEAVES, MAX_DEPTH = 2000, 20  # of a configuration; aliases in YAML can make a small file into a huge tree
LONGEST = 200  # characters of a setting

UNCOUNTED = ("stage.evaluation",)  # measures the result and changes no curve


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys (`<<`), with which a small file becomes a mapping that fills the memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass  # a merge key then has no constructor, and is refused


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    value: int = loader.construct_yaml_int(node)
    str(value)  # ValueError for one of thousands of digits (hexadecimal ones are read), as JSON's parser raises
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON or YAML file; empty if it is missing, no plain file, too large or none."""
    try:
        if not path.is_file() or path.stat().st_size > (MAX_BYTES if path.suffix == ".json" else MAX_YAML_BYTES):
            return {}
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            value = json.loads(text)
        else:
            value = {} if text.count("[") + text.count("{") > MAX_BRACKETS else yaml.load(text, Loader=_Loader)
    except (
        Exception
    ):  # PyYAML's constructors raise a KeyError for `!!bool maybe`, an IndexError for `!!int ''`, and others
        return {}
    return value if isinstance(value, dict) else {}


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what decides the result of a configuration, flat: dotted name -> value as text, classes by their last name.

    The seed is not among it, nor the folders, nor the evaluation. Classes that moved to another file keep their name.
    """
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any, int]] = [(key, config.get(key), 0) for key in reversed(DECIDING_GROUPS)]
    while waiting and len(found) < MAX_LEAVES:
        name, node, depth = waiting.pop()
        if name in UNCOUNTED or node is None:
            continue
        if isinstance(node, (dict, list)) and depth < MAX_DEPTH:
            pairs = node.items() if isinstance(node, dict) else enumerate(node)
            # Not more than can be kept: a list of aliases would fill the memory before the limit is seen.
            waiting += [(f"{name}.{key}", value, depth + 1) for key, value in list(pairs)[: MAX_LEAVES - len(waiting)]]
        else:
            text = str(node)[:LONGEST] if not isinstance(node, (dict, list)) else "..."
            found[name] = text.rpartition(".")[2] if name.endswith("._target_") else text
    return dict(sorted(found.items()))


def number_of(settings: Mapping[str, str], name: str) -> float | None:
    """Return the setting `name` as a number; None if it is missing or none."""
    try:
        return float(settings[name])
    except (KeyError, ValueError):
        return None


def final_measures(folder: Path) -> dict[str, float]:
    """Return the final measures in the marker of a complete run, by name; empty for one that is not complete."""
    metrics = read_mapping(folder / MARKER).get("metrics")
    if not isinstance(metrics, dict):
        return {}
    plain = {str(name): value for name, value in metrics.items() if isinstance(value, (int, float))}
    return {name: _float(value) for name, value in plain.items() if not isinstance(value, bool)}


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf
