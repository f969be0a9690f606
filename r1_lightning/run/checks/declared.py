"""A quick check of a configuration: names and plain types against the declarations of our targets, read from their source text.

`validate` finds everything that can be wrong, but it imports every target, and with them torch and Lightning: five seconds of
CPU time before `rollout.group_size=four` is answered. A class's file shows what it declares: the fields of a dataclass, the
parameters of `__init__`. So this module parses the file and does not import it. Declarations that cannot be read this way (a base
class from another file, an annotation that is not plain) are left to `validate`, which checks everything again.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import r1_lightning
from r1_lightning.run.config.hints import accepts, describe
from r1_lightning.run.config.keys import DEFAULT_TARGETS, OURS, RUN_KEYS, SETTLED_LATER, refuse_key
from r1_lightning.types.errors import require

ANYTHING = object  # stands for an annotation that is not read here: it accepts every value
PLAIN: dict[str, Any] = {
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "Path": Path,
    "Sequence": Sequence, "tuple": Sequence, "Mapping": Mapping,
}  # fmt: skip


def check_declared(config: DictConfig) -> None:
    """Raise `InvalidInput` for the first key that its target does not declare, and for the first value of another plain type."""
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:  # `validate` says what is wrong with it
        return
    assert isinstance(plain, dict)
    for group, node in plain.items():
        _check(str(group), node)


def _check(path: str, node: Any) -> None:
    for key, value in node.items() if isinstance(node, Mapping) else ():
        _check(f"{path}.{key}", value)
    for index, value in enumerate(node) if isinstance(node, list) else ():
        _check(f"{path}[{index}]", value)
    target = node.get("_target_", DEFAULT_TARGETS.get(path)) if isinstance(node, Mapping) else None
    declared = declared_by(target) if isinstance(target, str) else None
    if declared is None or not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if str(key).startswith("_") or key in RUN_KEYS.get(path, {}):
            continue
        if key not in declared:
            refuse_key(path, key, value, str(target).rpartition(".")[2], declared)
        hint = declared[key]
        is_open = value is None and key in SETTLED_LATER
        require(is_open or accepts(value, hint), f"{path}.{key}", value, f"it must be {describe(hint)}")


@functools.cache
def declared_by(target: str) -> dict[str, Any] | None:
    """Return the types of a class of ours by parameter; None if the text of its file does not show them."""
    module, _, name = target.removeprefix(OURS).rpartition(".")
    path = Path(r1_lightning.__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    if not target.startswith(OURS) or not path.is_file():
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return _parameters(found[0], tree) if len(found) == 1 else None


def _parameters(node: ast.ClassDef, tree: ast.Module) -> dict[str, Any] | None:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            arguments = item.args
            if arguments.kwarg or arguments.vararg:
                return None
            given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs][1:]
            return {argument.arg: _hint(argument.annotation, tree) for argument in given}
    if node.bases or not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return None
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    if any("ClassVar" in ast.unparse(field.annotation) or "init=False" in ast.unparse(field) for field in fields):
        return None
    return {field.target.id: _hint(field.annotation, tree) for field in fields if isinstance(field.target, ast.Name)}


def _hint(node: ast.expr | None, tree: ast.Module) -> Any:
    """Return the annotation as a type that `hints.accepts` knows; `ANYTHING` unless every part of it is plain."""
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name):
        return PLAIN.get(node.id) or _hint(_alias(node.id, tree), tree)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = (_hint(node.left, tree), _hint(node.right, tree))
        return ANYTHING if ANYTHING in sides else Union[sides]  # noqa: UP007 - made at run time
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        if node.value.id == "Literal":
            members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if all(isinstance(member, ast.Constant) for member in members):
                return Literal[tuple(member.value for member in members if isinstance(member, ast.Constant))]
    return ANYTHING


def _alias(name: str, tree: ast.Module) -> ast.expr | None:
    """Return the type expression that the module assigns to `name`; None if there is no such type alias."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return node.value if isinstance(node.value, (ast.Subscript, ast.BinOp)) else None
    return None
