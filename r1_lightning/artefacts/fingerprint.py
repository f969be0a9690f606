"""A fingerprint says whether two requests ask for the same artefact.

It is the SHA-256 of a canonical JSON text: keys sorted, no spaces, floats in their shortest exact decimal form
(Python's repr), so that the same values give the same digits on every machine. Which parts of a configuration it covers
is decided by the stage graph (`run/graph/fingerprints.py`); this module only serialises a value in exactly one way.

`1` and `1.0` are different texts and give different fingerprints: a configuration file keeps the type it was written
with.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from r1_lightning.types.errors import InvalidInput

SHORT_DIGITS = 10  # hexadecimal digits in a folder's name: 40 bits, a chance clash needs about a million artefacts


def fingerprint(payload: Mapping[str, Any]) -> str:
    """SHA-256 of `payload` as 64 hexadecimal digits; `InvalidInput` for a value that JSON cannot hold exactly."""
    _check(payload, "")
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _check(value: Any, path: str) -> None:
    """Raise `InvalidInput` for values that `json.dumps` refuses or silently changes (keys that are not text, NaN, tuples)."""
    where = path or "fingerprint"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"{where} has the key {key!r}, which is not allowed: every key must be text")
            _check(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{where}={value!r} is not allowed: it must be a finite number")
    elif not (value is None or isinstance(value, (bool, int, str))):
        raise InvalidInput(
            f"{where}={value!r} is not allowed: it must be text, a number, true, false, null or a list of them"
        )
