"""The word lists: equally long in both languages, nothing twice, no Chinese word within one that is counted beside it."""

from __future__ import annotations

import pytest

from r1_lightning.tasks import words
from r1_lightning.text.language import language_of

LISTS = ("PEOPLE", "THINGS", "EVENTS", "DAYS", "PLACES", "WEATHER", "KINDS", "CLASSES")


@pytest.mark.parametrize("name", LISTS)
def test_number_n_is_one_thing_in_both_languages(name: str) -> None:
    both = getattr(words, name)
    assert len(both["en"]) == len(both["zh"]) == len(set(both["en"])) == len(set(both["zh"]))
    for language, found in both.items():
        assert all(language_of(word) == language for word in found)


def test_members_belong_to_one_kind_and_are_no_part_of_what_is_counted_beside_them() -> None:
    for language in ("en", "zh"):
        members = words.MEMBERS[language]
        assert [len(some) for some in members] == [6] * len(words.KINDS[language])
        flat = [member for some in members for member in some]
        assert len(set(flat)) == len(flat)
    for some in words.MEMBERS["zh"]:  # English words are compared as whole words
        beside = [*some, *words.KINDS["zh"]]
        assert [(a, b) for a in some for b in beside if a != b and a in b] == []
