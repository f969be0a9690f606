"""Reads `config.json` and its like from a published folder, and leaves out of it what others might act on.

Published files hold notes of the library that wrote them (`_name_or_path`, in very many of them), and sometimes names of code that
the library would download and run. Neither says anything about the model, so both are dropped and never followed.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from r1_lightning.types.errors import InvalidInput, require

NAMES_OF_CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")


def described_model(path: Path) -> dict[str, Any]:
    """Return `config.json` without private keys (`_name_or_path`) and without names of code; warns that such code is not run."""
    fields = json_object(path)
    code = [name for name in NAMES_OF_CODE if fields.get(name)]
    if code:
        warnings.warn(f"{path} names code of its own ({', '.join(code)}), which is not run")
    return {name: value for name, value in _without_notes(fields).items() if name not in NAMES_OF_CODE}


def _without_notes(value: Any) -> Any:
    """Drop keys that begin with an underscore: private to `transformers`; in a Hydra config `_target_` would name code to run."""
    if isinstance(value, dict):
        return {key: _without_notes(item) for key, item in value.items() if not key.startswith("_")}
    return [_without_notes(item) for item in value] if isinstance(value, list) else value


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`. InvalidInput for a file that is missing, or holds something else."""
    require(path.is_file(), "the folder", str(path.parent), f"it holds no {path.name}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} cannot be read: it is no JSON ({error})") from error
    require(isinstance(value, dict), str(path), type(value).__name__, "it must be a JSON object")
    return dict(value)
