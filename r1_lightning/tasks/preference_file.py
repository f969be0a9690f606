"""Reads preferences from a file, one JSON object per line: pairs, or single responses with a label.

    {"prompt": "...", "chosen": "...", "rejected": "..."}        pairs (helpful) in TRL's preference format
    {"prompt": "...", "chosen": [messages], "rejected": [messages]}   pairs in UltraFeedback's format, or TRL's without a prompt
    {"prompt": "...", "response": "...", "label": true}          single responses (safety): true, false, "safe" or "unsafe"

A file has either pairs or single responses. A pair may have a judge's `chosen_score` and `rejected_score` (`score_chosen`,
`score_rejected`); R1 keeps pairs whose scores differ by more than 1 (R1v2 section 3.1), and the data module does the same. A hash
of the prompt alone holds out one prompt in `held_out_one_in`, so that rows with the same prompt are on the same side of the
train/test split. Other fields are ignored. Every other file type that `tasks.rows` reads (.json, .csv, .parquet) works, too.

RL on general data uses the prompts of such a file: `PromptFile` is a problem source without answers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from r1_lightning.tasks.chat_adaptors import prompt_of
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.rows import MAX_TEXT_CHARS, Rows, bytes_digest, path_of
from r1_lightning.tasks.turns import dialogue_of, reply_in
from r1_lightning.text.language import question_language
from r1_lightning.types.errors import InvalidInput, require, require_int
from r1_lightning.types.text import LabelledResponse, Language, Preference, PreferenceItem, Problem

FORMAT_VERSION = 2  # increment it when the same file gives other items
PROMPTS_VERSION = 2  # increment it when the same file gives other prompts (`PromptFile`)
LABELS = {True: True, False: False, "safe": True, "unsafe": False}
PAIR_FIELDS, SINGLE_FIELDS = ("prompt", "chosen", "rejected"), ("prompt", "response", "label")
FIELD = "data.preferences.file"
SCORES = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"))


class PreferenceFile:
    """A `PreferenceSource` of `file`, read on first use.

    Reading raises InvalidInput, with file and line, for an unreadable file or a malformed line.
    """

    def __init__(
        self, file: str | None = None, held_out_one_in: int = 10, folder: str | None = None, name: str | None = None
    ) -> None:
        require_int("data.preferences.held_out_one_in", held_out_one_in, 2)
        self.path = path_of(file, folder, name, FIELD)
        self.held_out_one_in = held_out_one_in

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"preferences-{FORMAT_VERSION}-{bytes_digest(self.path)}"

    def training_items(self, seed: int, wanted: int) -> Sequence[PreferenceItem]:
        """Return every item that is not held out, in file order; the data module shuffles."""
        found = [item for item in self._items if not self._is_held_out(item.question)]
        require(bool(found), FIELD, str(self.path), "every prompt in it is held out, so none is left for training")
        return found

    def held_out_items(self, count: int) -> Sequence[PreferenceItem]:
        """Return the first `count` held-out items, or all if there are fewer. InvalidInput if there is none."""
        found = [item for item in self._items if self._is_held_out(item.question)][:count]
        allowed = f"of its prompts, by a hash 1 in {self.held_out_one_in} is held out, and none of these few is"
        require(bool(found), FIELD, str(self.path), allowed)
        return found

    def _is_held_out(self, question: str) -> bool:
        return int(_digest(question)[:16], 16) % self.held_out_one_in == 0

    @cached_property
    def _items(self) -> list[PreferenceItem]:
        items = [_item(row) for row in _rows(self.path)]
        kinds = {type(item) for item in items}
        require(len(kinds) == 1, FIELD, str(self.path), "its lines must be all pairs, or all single")
        return items


class PromptFile:
    """A `ProblemSource` of the `prompt` fields of such a file: questions without an answer, for model-based rewards.

    A row may name its `language`, "en" or "zh"; otherwise it is detected from the prompt. Held-out problems and documents do not
    exist and raise InvalidInput.
    """

    def __init__(self, file: str | None = None, folder: str | None = None, name: str | None = None) -> None:
        self.path = path_of(file, folder, name, "task.source.file")

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"prompts-{PROMPTS_VERSION}-{bytes_digest(self.path)}"

    def train_problem(self, seed: int, index: int) -> Problem:
        """Return problem `index`; every pass over the file has its own order."""
        require_int("index", index, 0)
        turn, place = divmod(index, len(self._prompts))
        order = _order(f"{seed}/{turn}", len(self._prompts))
        prompt, language = self._prompts[order[place]]
        return Problem(prompt, "", f"prompt-{_digest(prompt)[:16]}", language)

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        raise InvalidInput(f"{self.path}: prompts without answers give no held-out problems")

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        raise InvalidInput(f"{self.path}: prompts without answers give no pre-training documents")

    @cached_property
    def _prompts(self) -> list[tuple[str, Language]]:
        """Return each prompt once, with the language that its first row names, or else the detected one."""
        found: dict[str, Language] = {}
        for row in _rows(self.path):
            named, prompt = row.language(), row.text("prompt")
            found.setdefault(prompt, named or question_language(prompt))
        return list(found.items())


def _order(key: str, size: int) -> list[int]:
    return sorted(range(size), key=lambda number: _digest(f"{key}/{number}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _rows(path: Path) -> list[Row]:
    return Rows(str(path), max_row_chars=MAX_TEXT_CHARS).read()


def _item(row: Row) -> PreferenceItem:
    if isinstance(row.fields.get("chosen"), list):
        return _pair(row, *_conversations(row))
    fields = SINGLE_FIELDS if "response" in row.fields else PAIR_FIELDS
    for name in fields:
        if name not in row.fields:
            raise InvalidInput(
                f"{row.where}: the field {name!r} is missing ({', '.join(PAIR_FIELDS)}; or {', '.join(SINGLE_FIELDS)})"
            )
    question = row.text("prompt")
    if fields == SINGLE_FIELDS:
        label = row.value("label")
        if not isinstance(label, (bool, str)) or label not in LABELS:
            row.refuse("label", label, "it must be true, false, safe or unsafe")
        return LabelledResponse(question, row.text("response"), LABELS[label])
    return _pair(row, question, row.text("chosen"), row.text("rejected"))


def _pair(row: Row, question: str, chosen: str, rejected: str) -> Preference:
    if chosen == rejected:
        row.refuse("rejected", rejected, "it must differ from chosen")
    names = next((names for names in SCORES if any(row.fields.get(name) is not None for name in names)), None)
    if names is None:
        return Preference(question, chosen, rejected)
    high, low = (_score(row, name) for name in names)
    return Preference(question, chosen, rejected, high - low)


def _conversations(row: Row) -> tuple[str, str, str]:
    """Return question, chosen and rejected reply of a pair whose replies are message lists, with or without the question."""
    alone = len(row.value("chosen")) == 1
    if alone:
        asked, replies = prompt_of(row, "prompt"), [reply_in(row, name) for name in ("chosen", "rejected")]
    else:
        asked, other = (dialogue_of(row, name, ends_with_reply=True) for name in ("chosen", "rejected"))
        replies = [asked.reply, other.reply]
        if (asked.asked, asked.system) != (other.asked, other.system):
            row.refuse("rejected", row.fields["rejected"], "it must answer the same question as chosen")
    if asked.earlier:
        row.refuse("chosen", row.fields["chosen"], "preferences of several turns are not read")
    better, worse = replies
    return asked.shown()[0], better, worse


def _score(row: Row, name: str) -> float:
    value = row.fields.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        row.refuse(name, value, "a judge's scores are two finite numbers, or left out")
    return float(value)
