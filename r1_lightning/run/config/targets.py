"""The code that a configuration may name: in a user's own configuration any, in a stranger's only classes of this package."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from r1_lightning.types.errors import InvalidInput, require

PACKAGE = "r1_lightning."
TRAINER = "lightning.Trainer"


def find_own_modules() -> None:
    """Let `_target_: my_rewards.Brevity` find my_rewards.py in the working directory; installed packages take precedence."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def source_digest(target: Any) -> str | None:
    """SHA-256 of the source file of `target`; None if it has none (built in, or compiled)."""
    try:
        path = inspect.getsourcefile(target)
    except TypeError:
        return None
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def refuse_foreign_targets(node: Any, path: str = "") -> None:
    """Raise `InvalidInput` for a `_target_` that is not a class of this package (or Lightning's Trainer).

    `node` is a resolved configuration as plain values. `r1_lightning.artefacts.files.os.system` starts like one of our names but is
    not ours, so the name must lead to a class whose own full name is equal to it.
    """
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        place = f"{path}.{key}" if path else str(key)
        if key == "_target_":
            allowed = "it is no class of r1_lightning; --trust-targets runs the code that this configuration names"
            require(value == TRAINER or _is_ours(value), place, value, allowed)
        refuse_foreign_targets(value, place)


def refuse_interpolations(value: Any, where: str) -> None:
    """Raise `InvalidInput` for text that Hydra would still interpolate.

    `\\${...}` loses its backslash when it is resolved, and would act (`oc.create` makes a `_target_`) when a part of the
    configuration is resolved again.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_interpolations(key, where)
            refuse_interpolations(item, where)
    elif isinstance(value, list):
        for item in value:
            refuse_interpolations(item, where)
    elif isinstance(value, str) and "${" in value:
        raise InvalidInput(f"{where}: the value {value!r} is not allowed")


def _is_ours(dotted: Any) -> bool:
    if not isinstance(dotted, str) or not dotted.startswith(PACKAGE):
        return False
    try:
        found = get_object(dotted)
    except Exception as error:
        raise InvalidInput(f"_target_={dotted!r} is not allowed: it cannot be imported") from error
    return isinstance(found, type) and f"{found.__module__}.{found.__qualname__}" == dotted
