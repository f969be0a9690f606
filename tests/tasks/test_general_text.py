"""Requests and the quality rule: worked by hand, per fault, and on replies that no template wrote."""

from __future__ import annotations

from statistics import mean

import pytest

from r1_lightning.tasks.general_text import FAULTS, FORMS, Needs, Request, care, draw_request, quality, write_reply
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.text.language import is_mixed, language_of
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Language

GREET = Request("greet", (0, 1))  # Ann, the book: three pieces with the greeting
NAME_3 = Request("list", (1, 3))  # three animals


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Gladly! Hello, Ann! How is the book?", 1.0),
        ("Hi Ann, and how is your BOOK?", 0.7),  # all of it, and no word of politeness
        ("Leave me alone. Hello, Ann! How is the book?", 0.2),
        ("Of course. Hello, Ann!", 2 / 3),  # two of three pieces
        ("Annabel has a bookshelf", 0.0),  # other words that begin alike
        ("很乐意！你好，小安！书怎么样？", 0.0),  # the other language
        ("", 0.0),
        ("Gladly! Hello, Ann! How is the book? " + "And on and on it goes. " * 8, 0.5),  # 8 and 48 words
    ],
)
def test_quality_by_hand(reply: str, expected: float) -> None:
    assert quality(GREET.needs("en"), "en", reply) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Of course. A cat, a dog and a fish.", 1.0),
        ("Of course. A cat and a cat and a dog.", 2 / 3),  # two different ones of three
        ("Of course. Cat, dog, fish, cow.", 3 / 4),  # one more than asked
        ("cat dog fish", 0.7),
        ("Of course. Red, green, blue.", 0.0),
    ],
)
def test_quality_of_lists_by_hand(reply: str, expected: float) -> None:
    assert quality(NAME_3.needs("en"), "en", reply) == pytest.approx(expected, abs=1e-12)


def test_questions_by_hand() -> None:
    assert (
        GREET.question("en") == "Greet Ann and ask about the book"
        and GREET.question("zh") == "向小安问好，并问问书怎么样"
    )
    assert NAME_3.question("zh") == "说出3种动物" and NAME_3.key() == "list:1,3"
    assert Request("weather", (0, 1, 3)).question("en") == "It is windy and cold in Rome today. Describe the weather"
    assert care(GREET, "en") == "I should be polite and leave nothing out: Ann, book."


def test_each_fault_costs_what_the_rule_says() -> None:
    rng, found = keyed_random("faults"), {fault: [] for fault in FAULTS}
    for _ in range(400):
        request, other = draw_request(rng, 1, 3), draw_request(rng, 1, 3)
        for language in ("en", "zh"):
            if request != other:
                for fault in FAULTS:
                    reply = write_reply(rng, request, language, fault, other)
                    found[fault].append(quality(request.needs(language), language, reply))
    assert set(found["good"]) == {1.0} and set(found["plain"]) == {0.7} and set(found["rude"]) == {0.2}
    assert set(found["too_short"]) == set(found["wrong_language"]) == {0.0}
    assert (
        max(found["incomplete"]) < 1.0
        and mean(found["incomplete"]) > mean(found["off_topic"])
        and max(found["off_topic"]) < 1.0
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_questions_thoughts_and_good_replies_are_in_one_language(language: Language) -> None:
    rng = keyed_random("languages")
    for _ in range(200):
        request = draw_request(rng, 1, 3)
        for text in (
            request.question(language),
            care(request, language),
            write_reply(rng, request, language, "good", request),
        ):
            assert language_of(text) == language and not is_mixed(text), text


def test_levels_are_kept() -> None:
    rng = keyed_random("levels")
    for level in (1, 2, 3):
        drawn = [draw_request(rng, level, level) for _ in range(100)]
        assert {request.level for request in drawn} == {level}
    kinds = {draw_request(rng, 1, 3).kind for _ in range(300)}
    assert kinds == {*FORMS, "list"}


def test_needs_as_json() -> None:
    for request in (GREET, NAME_3):
        assert Needs.from_json(request.needs("zh").to_json()) == request.needs("zh")
    for broken in ("", "[]", "{}", '{"pieces": 3, "items": [], "count": 0}'):
        with pytest.raises(InvalidInput, match="needs="):
            Needs.from_json(broken)
