"""One row of a data set, and the only way adaptors look into it.

Rows come from files that others wrote. A field that is missing, of another type, empty or broken Unicode ends in one line that
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
    """The fields of one row, and `where` it stands ("train.jsonl, line 7"). Every method raises `InvalidInput`."""

    fields: Mapping[str, Any]
    where: str

    def value(self, name: str) -> Any:
        """What stands under `name`, whatever it is."""
        if name not in self.fields:
            raise InvalidInput(f"{self.where}: the field {name!r} is missing")
        return self.fields[name]

    def text(self, name: str) -> str:
        """A non-empty string of valid Unicode, as it stands."""
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            self.refuse(name, value, "it must be a non-empty string")
        if not is_unicode(value):
            self.refuse(name, value, "it must be valid Unicode, without unpaired surrogates")
        return value

    def optional_text(self, name: str) -> str:
        """The same, where the field may be missing, null or empty: then the empty string."""
        value = self.fields.get(name)
        return "" if value is None or value == "" else self.text(name)

    def language(self) -> Language | None:
        """The language that the row names under `language`, "en" or "zh"; None where it names none."""
        named = self.optional_text("language")
        for language in LANGUAGES:
            if named == language:
                return language
        if named:
            self.refuse("language", named, f"it must be one of {', '.join(LANGUAGES)}, or left out")
        return None

    def answer(self, name: str) -> str:
        """A reference answer: text or a number, stripped; longer than any completion's answer may be is refused."""
        value = self.value(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and parse_number(str(value)) is not None:
            return str(value)
        return self.checked_answer(name, self.text(name))

    def checked_answer(self, name: str, answer: str) -> str:
        """`answer`, taken from the field `name`, stripped and neither empty nor too long to be compared."""
        answer = answer.strip()
        if not answer or len(answer) > MAX_ANSWER_CHARS:
            self.refuse(name, answer, f"an answer has 1 to {MAX_ANSWER_CHARS} characters")
        return answer

    def whole(self, name: str, minimum: int, maximum: int) -> int:
        """A whole number in [minimum, maximum]; one in quotes ("042") is one, and so is 1.0: columns with a null hold floats."""
        value = self.value(name)
        is_number = isinstance(value, (int, float, str)) and not isinstance(value, bool)
        number = parse_number(str(value)) if is_number else None
        if number is None or number.denominator != 1 or not minimum <= number <= maximum:
            self.refuse(name, value, f"it must be a whole number from {minimum} to {maximum}")
        return int(number)

    def texts(self, name: str) -> list[str]:
        """A list of strings that are text."""
        value = self.value(name)
        if not isinstance(value, list):
            self.refuse(name, value, "it must be a list of strings")
        return [Row({name: item}, self.where).text(name) for item in value]

    def optional_object(self, name: str) -> dict[str, Any]:
        """The mapping under `name`, which can be written as JSON again; the empty one where the field is missing."""
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
        """The mapping under `name` as a row of its own."""
        value = self.value(name)
        if not isinstance(value, Mapping):
            self.refuse(name, value, "it must be an object with fields")
        return Row(value, f"{self.where}, {name}")

    def refuse(self, name: str, value: object, allowed: str) -> NoReturn:
        """Raise the one line."""
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."
        raise InvalidInput(f"{self.where}: {name}={shown} is not allowed: {allowed}")


def is_unicode(text: str) -> bool:
    """False for text with half of a surrogate pair, which cannot be encoded as UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def question_id(prefix: str, *texts: str) -> str:
    """`prefix` and 16 digits that are the same whatever the case and spacing of `texts`."""
    normalised = "\n".join(" ".join(text.casefold().split()) for text in texts)
    return f"{prefix}-{hashlib.sha256(normalised.encode()).hexdigest()[:16]}"
