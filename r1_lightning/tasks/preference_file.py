"""Preferences from a file: one JSON object per line, pairs or single responses with a label.

    {"prompt": "...", "chosen": "...", "rejected": "..."}        pairs (helpful), as TRL's preference format has them
    {"prompt": "...", "response": "...", "label": true}          single responses (safety): true, false, "safe" or "unsafe"

All lines are of one kind. A pair may hold `chosen_score` and `rejected_score`, a judge's; R1 keeps pairs whose scores differ by
more than 1 (R1v2 section 3.1), and the data module does the same. One prompt in `held_out_one_in`, by a hash of the prompt alone,
is never trained on, so that two rows with one prompt stand on the same side. Other fields are not looked at.

The prompts of such a file are also what RL on general data asks: `PromptFile` is a problem source without answers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from r1_lightning.types.errors import InvalidInput, require, require_int
from r1_lightning.types.text import LabelledResponse, Preference, PreferenceItem, Problem

FORMAT_VERSION = 1  # goes up when the same file would give other items
LABELS = {True: True, False: False, "safe": True, "unsafe": False}
SCORES = ("chosen_score", "rejected_score")
_SHOWN_CHARS = 60


class PreferenceFile:
    """A `PreferenceSource` of the file `name` in `folder`, which is read when it is first asked.

    Raises InvalidInput, when asked, for a file that cannot be read and a line that is not what it should be, by file and line.
    """

    def __init__(self, folder: str, name: str, held_out_one_in: int = 10) -> None:
        require_int("data.preferences.held_out_one_in", held_out_one_in, 2)
        self.path = Path(folder) / name
        self.held_out_one_in = held_out_one_in

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"preferences-{FORMAT_VERSION}-{hashlib.sha256(self._content).hexdigest()[:16]}"

    def training_items(self, seed: int, wanted: int) -> Sequence[PreferenceItem]:
        """Every item that is not held out; shuffling is the data module's business."""
        found = [item for item in self._items if not self._is_held_out(item.question)]
        require(bool(found), "data.preferences.name", str(self.path), "every prompt of it is held out, none is left")
        return found

    def held_out_items(self, count: int) -> Sequence[PreferenceItem]:
        """The first `count` held-out items, or all where there are fewer. InvalidInput where there is none."""
        found = [item for item in self._items if self._is_held_out(item.question)][:count]
        allowed = f"of its prompts, by a hash 1 in {self.held_out_one_in} is held out, and none of these few is"
        require(bool(found), "data.preferences.name", str(self.path), allowed)
        return found

    def _is_held_out(self, question: str) -> bool:
        return int(_digest(question)[:16], 16) % self.held_out_one_in == 0

    @cached_property
    def _content(self) -> bytes:
        return _bytes_of(self.path)

    @cached_property
    def _items(self) -> list[PreferenceItem]:
        items = [_item(row, where) for row, where in _rows(self._content, self.path)]
        kinds = {type(item) for item in items}
        require(len(kinds) == 1, "data.preferences.name", str(self.path), "its lines must be all pairs, or all single")
        return items


class PromptFile:
    """A `ProblemSource` of the `prompt` fields of such a file: questions without an answer, for rewards by a model.

    There is nothing to test on, and no text to pre-train on: both raise InvalidInput.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.path = Path(folder) / name

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"prompts-{FORMAT_VERSION}-{hashlib.sha256(_bytes_of(self.path)).hexdigest()[:16]}"

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem `index`: every pass over the file has an order of its own."""
        require_int("index", index, 0)
        turn, place = divmod(index, len(self._prompts))
        order = _order(f"{seed}/{turn}", len(self._prompts))
        prompt = self._prompts[order[place]]
        return Problem(prompt, "", f"prompt-{_digest(prompt)[:16]}")

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        raise InvalidInput(f"{self.path}: prompts without answers give no held-out problems")

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        raise InvalidInput(f"{self.path}: prompts without answers give no pre-training documents")

    @cached_property
    def _prompts(self) -> list[str]:
        rows = _rows(_bytes_of(self.path), self.path)
        return list(dict.fromkeys(_text(row, "prompt", where) for row, where in rows))


def _order(key: str, size: int) -> list[int]:
    return sorted(range(size), key=lambda number: _digest(f"{key}/{number}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} is not readable: {error.strerror}; it must be a file of JSON lines") from error


def _rows(content: bytes, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's object, and where it stands."""
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: the file is not valid UTF-8 (byte {error.start})") from error
    found = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where, found = f"{path}, line {number}", True
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{where}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{where}: a JSON object is needed, not {type(row).__name__}")
        yield row, where
    if not found:
        raise InvalidInput(f"{path} is empty: it needs one JSON object per line")


def _item(row: dict[str, Any], where: str) -> PreferenceItem:
    question = _text(row, "prompt", where)
    if "response" in row:
        label = row.get("label")
        known = isinstance(label, (bool, str)) and label in LABELS
        _check(known, where, "label", label, "it must be true, false, safe or unsafe")
        assert isinstance(label, (bool, str))
        return LabelledResponse(question, _text(row, "response", where), LABELS[label])
    chosen, rejected = _text(row, "chosen", where), _text(row, "rejected", where)
    _check(chosen != rejected, where, "rejected", rejected, "it must differ from chosen")
    given = [name for name in SCORES if row.get(name) is not None]
    if not given:
        return Preference(question, chosen, rejected)
    high, low = (_number(row, name, where) for name in SCORES)
    return Preference(question, chosen, rejected, high - low)


def _number(row: dict[str, Any], field: str, where: str) -> float:
    value = row.get(field)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _check(is_number, where, field, value, "a judge's scores are two finite numbers, or left out")
    assert isinstance(value, (int, float))
    return float(value)


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise InvalidInput(
            f"{where}: the field {field!r} is missing (prompt, chosen, rejected; or prompt, response, label)"
        )
    value = row[field]
    is_text = isinstance(value, str) and bool(value.strip())
    _check(is_text, where, field, value, "it must be a non-empty string")
    is_unicode = not any("\ud800" <= character <= "\udfff" for character in value)
    _check(is_unicode, where, field, value, "it must be valid Unicode, without unpaired surrogates")
    return str(value)


def _check(condition: bool, where: str, field: str, value: object, allowed: str) -> None:
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."
        raise InvalidInput(f"{where}: {field}={shown} is not allowed: {allowed}")
