"""One row of a data set, with the typed accessors through which adaptors read it.

Rows come from other people's files. A field that is missing, empty, of another type or invalid Unicode raises a one-line error that
names the file, the row and the field, so that nobody has to find row 5,211 of 7,473 by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from r1_lightning.text.answers import MAX_ANSWER_CHARS, parse_number
from r1_lightning.text.language import LANGUAGES
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Language

_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row, and its place `where` ("train.jsonl, line 7"). Every method raises `InvalidInput`."""

    fields: Mapping[str, Any]
    where: str

    def value(self, name: str) -> Any:
        """Return the value of the field `name`, of any type."""
        if name not in self.fields:
            raise InvalidInput(f"{self.where}: the field {name!r} is missing")
        return self.fields[name]

    def text(self, name: str) -> str:
        """Return the field as a non-empty string of valid Unicode, unchanged."""
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            self.refuse(name, value, "it must be a non-empty string")
        if not is_unicode(value):
            self.refuse(name, value, "it must be valid Unicode, without unpaired surrogates")
        return value

    def optional_text(self, name: str) -> str:
        """Return `text`, or "" if the field is missing, null or empty."""
        value = self.fields.get(name)
        return "" if value is None or value == "" else self.text(name)

    def language(self) -> Language | None:
        """Return the field `language`, "en" or "zh"; None if the row has none."""
        named = self.optional_text("language")
        for language in LANGUAGES:
            if named == language:
                return language
        if named:
            self.refuse("language", named, f"it must be one of {', '.join(LANGUAGES)}, or left out")
        return None

    def answer(self, name: str) -> str:
        """Return a reference answer, text or a number, stripped; refuse one longer than a completion's answer may be."""
        value = self.value(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and parse_number(str(value)) is not None:
            return str(value)
        return self.checked_answer(name, self.text(name))

    def checked_answer(self, name: str, answer: str) -> str:
        """Return `answer` (from the field `name`) stripped; refuse it if it is empty or too long to compare."""
        answer = answer.strip()
        if not answer or len(answer) > MAX_ANSWER_CHARS:
            self.refuse(name, answer, f"an answer has 1 to {MAX_ANSWER_CHARS} characters")
        return answer

    def parse_int(self, name: str, minimum: int, maximum: int) -> int:
        """Return an integer in [minimum, maximum]; accepts text ("042") and 1.0, because columns with nulls hold floats."""
        value = self.value(name)
        is_number = isinstance(value, (int, float, str)) and not isinstance(value, bool)
        number = parse_number(str(value)) if is_number else None
        if number is None or number.denominator != 1 or not minimum <= number <= maximum:
            self.refuse(name, value, f"it must be a whole number from {minimum} to {maximum}")
        return int(number)

    def texts(self, name: str) -> list[str]:
        """Return a list of non-empty strings."""
        value = self.value(name)
        if not isinstance(value, list):
            self.refuse(name, value, "it must be a list of strings")
        return [Row({name: item}, self.where).text(name) for item in value]

    def optional_object(self, name: str) -> dict[str, Any]:
        """Return the object under `name`, which must be valid JSON; {} if the field is missing."""
        value = self.fields.get(name, {})
        if not isinstance(value, dict):
            self.refuse(name, value, "it must be an object")
        try:
            written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            self.refuse(name, value, "no NaN or infinity may stand in it, and nothing that JSON does not know")
        if not is_unicode(written):
            self.refuse(name, value, "its text must be valid Unicode, without unpaired surrogates")
        return value

    def inner(self, name: str) -> Row:
        """Return the object under `name` as a row."""
        value = self.value(name)
        if not isinstance(value, Mapping):
            self.refuse(name, value, "it must be an object with fields")
        return Row(value, f"{self.where}, {name}")

    def refuse(self, name: str, value: object, allowed: str) -> NoReturn:
        """Raise the one-line `InvalidInput` for the value of the field `name`."""
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."
        raise InvalidInput(f"{self.where}: {name}={shown} is not allowed: {allowed}")


def is_unicode(text: str) -> bool:
    """False if `text` has an unpaired surrogate, which UTF-8 cannot encode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def question_id(prefix: str, *texts: str) -> str:
    """Return `prefix` and a hash of `texts` (16 hex digits) that ignores case and spacing."""
    normalised = "\n".join(" ".join(text.casefold().split()) for text in texts)
    return f"{prefix}-{hashlib.sha256(normalised.encode()).hexdigest()[:16]}"
