"""Validates a whole configuration before anything runs.

Hydra rejects a mistyped key on the command line, but keeps one in a YAML file, and accepts a wrong type anywhere
(`group_size=four`). So every node with a `_target_` is compared with its target's parameters: the names, and the types of
plain values by the annotations. A target of ours is also instantiated, because its constructor checks ranges; arguments that exist
only in a run (the backbone, the tokenizer) have stand-ins in `STAND_INS`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from r1_lightning.rollout.value_baseline import ValueBaseline
from r1_lightning.run.checks.rules import check_rules
from r1_lightning.run.config.hints import accepts, describe
from r1_lightning.run.config.keys import DEFAULT_TARGETS, OURS, RUN_KEYS, SETTLED_LATER, refuse_key
from r1_lightning.types.errors import InvalidInput, require, require_int, require_number

# Stand-ins that a constructor needs to check its other arguments; all other arguments that exist only in a run are None.
STAND_INS: dict[str, Callable[[], Any]] = {
    "vocab_size": lambda: 512,
    "seed": lambda: 0,
    "max_steps": lambda: 1,
    "backbone": lambda: _Backbone(),
    "rollout": lambda: SimpleNamespace(advantages=ValueBaseline()),  # Hydra would make a configuration of a dataclass
}
NAME = re.compile(r"[A-Za-z][\w.-]{0,59}", re.ASCII)  # of a run: a part of its folder's name
MAX_SEED = 2**32 - 1  # the largest that NumPy and Lightning's seed_everything take
WITH_LIGHTNING = ("data", "optim", "trainer", "callbacks", "stage")  # checked last: importing Lightning takes seconds
NOT_NEGATIVE = ("data", "rollout", "optim", "stage")  # no quantity in these groups is ever negative: null says "none"


class _Backbone(nn.Module):
    """A stand-in backbone for constructors: a head with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)


def validate(config: DictConfig) -> None:
    """Raise `InvalidInput` naming the first field that is missing, unknown, of the wrong type or out of range."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InvalidInput(f"the configuration is not allowed: {' '.join(str(error).split())}") from error
    assert isinstance(plain, dict)
    require_int("seed", plain.get("seed"), 0, MAX_SEED)
    require(isinstance(plain.get("fresh"), bool), "fresh", plain.get("fresh"), "it must be true or false")
    dry_run = plain.get("dry_run", False)  # configurations of artefacts made before there was such a key lack it
    require(isinstance(dry_run, bool), "dry_run", dry_run, "it must be true or false")
    _check_machine(plain.get("dry_run_memory_gib"), plain.get("dry_run_devices", 1), dry_run)
    name = plain.get("name")
    is_name = name is None or (isinstance(name, str) and NAME.fullmatch(name) is not None)
    require(is_name, "name", name, "it must be letters, digits, '_', '.' and '-', at most 60, the first a letter")
    init_from = plain.get("init_from")
    require(init_from is None or isinstance(init_from, str), "init_from", init_from, "it must be a folder, or null")
    root = (plain.get("paths") or {}).get("root")
    require(isinstance(root, str) and bool(root), "paths.root", root, "it must be a folder")
    require(isinstance(plain.get("stage"), dict), "stage", plain.get("stage"), "it must be the name of a stage")
    for group in sorted(map(str, plain), key=WITH_LIGHTNING.__contains__):
        _walk(group, plain[group])
        if group in NOT_NEGATIVE:
            _refuse_negative(group, plain[group])
    check_rules(plain)


def _check_machine(memory_gib: Any, devices: Any, dry_run: bool) -> None:
    """Check the machine that a dry run is asked about."""
    if memory_gib is not None:
        require_number("dry_run_memory_gib", memory_gib, 0.0, open_minimum=True)
    require_int("dry_run_devices", devices, 1)
    is_asked = memory_gib is not None or devices > 1
    require(dry_run or not is_asked, "dry_run", dry_run, "dry_run_memory_gib and dry_run_devices go with dry_run=true")


def _walk(path: str, node: Any) -> None:
    """Check all nodes, inner nodes first, because their error names the exact field."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            _walk(f"{path}.{key}", value)
        if path in RUN_KEYS:
            _check_run_keys(path, node)
        target = node.get("_target_", DEFAULT_TARGETS.get(path))
        if target is not None:
            _check_target(path, {**node, "_target_": target})
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _walk(f"{path}[{index}]", value)


def _refuse_negative(path: str, node: Any) -> None:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        _refuse_negative(f"{path}.{key}", value)
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        require(node >= 0, path, node, "it must be at least 0 (null says none)")


def _check_run_keys(path: str, node: Mapping[str, Any]) -> None:
    known = RUN_KEYS[path]
    for key, value in node.items():
        if key in known:
            require(accepts(value, known[key]), f"{path}.{key}", value, f"it must be {describe(known[key])}")
            if isinstance(value, int) and not isinstance(value, bool):
                require_int(f"{path}.{key}", value, 1)
        elif "_target_" not in node:
            refuse_key(path, key, value, path, known)


def _check_target(path: str, node: Mapping[str, Any]) -> None:
    target = _locate(path, node["_target_"])
    name = node["_target_"].rpartition(".")[2]
    ours = RUN_KEYS.get(path, {})
    leaves = {key: value for key, value in node.items() if not key.startswith("_") and key not in ours}
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(target)
    leaves = {key: value for key, value in leaves.items() if value is not None or key not in SETTLED_LATER}
    for key, value in leaves.items():
        if key not in parameters and not takes_any:
            refuse_key(path, key, value, name, parameters)
        if key in hints:
            require(accepts(value, hints[key]), f"{path}.{key}", value, f"it must be {describe(hints[key])}")
    if node["_target_"].startswith(OURS) or dataclasses.is_dataclass(target):
        missing = [
            key
            for key, parameter in parameters.items()
            if _is_required(parameter) and node.get(key) is None and key not in leaves
        ]
        # A dataclass stands in YAML as a whole; a data module is given parts by `run` besides, dataclass or not.
        is_whole = dataclasses.is_dataclass(target) and path != "data"
        absent = [key for key in missing if is_whole and key not in STAND_INS]
        if absent:
            raise InvalidInput(f"{path}.{absent[0]} is missing: {name} needs it")
        _make(path, leaves, node, {key: STAND_INS.get(key, lambda: None)() for key in missing})


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )


def _locate(path: str, dotted: Any) -> Any:
    try:
        return get_object(dotted)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{path}._target_={dotted!r} is not allowed: it cannot be imported ({reason})") from error


def _hints(target: Any) -> dict[str, Any]:
    """Return the annotations of `target`'s parameters; empty if they cannot be evaluated (types for type checkers only)."""
    is_plain_class = isinstance(target, type) and not dataclasses.is_dataclass(target)
    annotated: Any = vars(target).get("__init__", target.__init__) if is_plain_class else target
    try:
        return typing.get_type_hints(inspect.unwrap(annotated))
    except (NameError, TypeError, AttributeError):
        return {}


def _make(path: str, leaves: Mapping[str, Any], node: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Instantiate the target once, so that its constructor checks the values."""
    convert = (
        "all" if path.split(".")[0] in ("reward", "task") else node.get("_convert_", "none")
    )  # as `run.build.parts` does
    try:
        instantiate({**leaves, "_target_": node["_target_"], "_convert_": convert}, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        message = " ".join(str(cause or error).split())
        if isinstance(cause, InvalidInput):
            raise InvalidInput(_with_path(path, node, message)) from error
        raise InvalidInput(f"{path} is not allowed: {message}") from error


def _with_path(path: str, node: Mapping[str, Any], message: str) -> str:
    """Replace the path that the constructor gave a field by its path in this configuration."""
    field, separator, rest = message.partition("=")
    names = field.split(".")
    for start, first in enumerate(names):  # the longest tail of the field's path that begins with a key of the node
        if separator and first in node:
            return f"{path}.{'.'.join(names[start:])}={rest}"
    return message if names[0] == path.split(".", 1)[0] else f"{path}: {message}"
