"""Turns the columns that an adaptor does not use into a problem's metadata, where a reward can read them.

TRL passes a reward function every column of its row (`task_type`, `difficulty`, `source`); here a reward reads
`problem.metadata["task_type"]`. Values are text: numbers, booleans, lists and objects become JSON; null and empty text are dropped.

A file must not set the metadata keys that this program uses itself (`tests` marks programming problems; `domain` selects rewards):
a column `tests` is stored as `column_tests`. Values longer than the limits below are dropped, and `columns_left_out` names their
columns.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from r1_lightning.tasks.dataset_task import STEPS
from r1_lightning.tasks.family import TASK
from r1_lightning.tasks.fields import Row, is_unicode
from r1_lightning.tasks.general import NEEDS
from r1_lightning.tasks.mixture import DOMAIN
from r1_lightning.tasks.reasoning_gym_task import ENTRY
from r1_lightning.tasks.safety import HARMFUL
from r1_lightning.tasks.turns import SYSTEM
from r1_lightning.text.code_tests import TESTS

LEFT_OUT = "columns_left_out"
RESERVED = frozenset((TESTS, STEPS, TASK, DOMAIN, NEEDS, HARMFUL, ENTRY, SYSTEM, "options", "generator", LEFT_OUT))
PREFIX = "column_"
MAX_VALUE_CHARS, MAX_CHARS = 10_000, 50_000  # of one value, and of all names and values of a row
MAX_NAME_CHARS = 100


def columns_of(row: Row, used: Collection[str]) -> dict[str, str]:
    """Return all columns of `row` except those `used` by its adaptor as metadata. Raises `InvalidInput` for invalid Unicode."""
    kept: dict[str, str] = {}
    left_out, room = [], MAX_CHARS
    for name, value in row.fields.items():
        if name in used or value is None or value == "":
            continue
        text = _text(row, name, value)
        key = PREFIX + name if name in RESERVED else name
        size = len(key) + len(text)
        if len(name) > MAX_NAME_CHARS or len(text) > MAX_VALUE_CHARS or size > room:
            left_out.append(name[:MAX_NAME_CHARS])
        else:
            kept[key] = text
            room -= size
    return kept | ({LEFT_OUT: json.dumps(sorted(left_out)[:MAX_NAME_CHARS], ensure_ascii=False)} if left_out else {})


def inner_columns(row: Row, name: str) -> dict[str, str]:
    """Return the fields of the object under `name` as metadata; empty if there is none."""
    value = row.fields.get(name)
    return columns_of(Row(value, f"{row.where}, {name}"), ()) if isinstance(value, Mapping) else {}


def _text(row: Row, name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    if not is_unicode(text) or not is_unicode(name):
        row.refuse(name, value, "it must be valid Unicode, without unpaired surrogates")
    return text
