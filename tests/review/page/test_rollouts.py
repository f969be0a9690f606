"""The browser of rollouts: order, what is left out, links."""

from __future__ import annotations

import re

from r1_lightning.review.page import rollouts
from r1_lightning.review.page.choosing import SHARE
from r1_lightning.review.page.document import ROOM
from r1_lightning.review.page.inert_text import json_block
from r1_lightning.review.page.rollouts import Numbers, by_step, section
from r1_lightning.review.rollout_records import Tokens
from tests.support.example_records import example_record, example_records

PLENTY = 10**9


def test_steps_groups_and_samples_are_in_order_and_the_later_of_two_counts() -> None:
    records = [
        example_record(8, 1, 1), example_record(8, 1, 0), example_record(8, 0, 0), example_record(10, 0, 0),
        example_record(8, 1, 1, completion="later"), example_record(8, 0, 0, source="evaluation", evaluation="val"),
    ]  # fmt: skip
    steps = by_step(records)
    assert list(steps) == [(8, "evaluation", "val"), (8, "rollout", ""), (10, "rollout", "")]
    assert [[record.sample for record in group] for group in steps[8, "rollout", ""]] == [[0], [0, 1]]
    assert steps[8, "rollout", ""][1][1].completion == "later"


def test_every_sample_has_its_link_and_its_numbers() -> None:
    known = Numbers()
    text = section(example_records(range(3), groups=2, samples=4), PLENTY, known)
    names = re.findall(r' id="([^"]+)"', text)
    assert len(names) == len(set(names)) == 3 * (1 + 2 + 2 * 4)
    assert {f"#{name}" for name in names} == set(re.findall(r'href="([^"]+)"', text))
    assert re.findall(r'data-i="(\d+)"', text) == [str(place) for place in range(24)] and len(known.samples) == 24
    assert "24 of 24 recorded completions, 3 of 3 recorded steps" in text
    assert text.index('id="step-2"') < text.index('id="step-0"'), "the newest step comes first"


def test_a_step_says_how_many_are_right() -> None:
    """Of the four kinds of the examples one is right: rewards 2, 1, 0, 0."""
    text = section(example_records([5], groups=2, samples=4), PLENTY, Numbers())
    assert "rollout after 5 steps: 2 prompts, 8 completions, 25% right, mean reward 0.75" in text
    assert "prompt 0</a>: 1 of 4 right, mean reward 0.75, " in text
    asked = '<bdi class="code">What is 17+25? (0)</bdi>, right answer <bdi class="code">42</bdi>'
    assert asked in text and "right answer" not in section([example_record(reference="")], PLENTY, Numbers())


def test_the_page_stays_within_its_room() -> None:
    records, room, known = example_records(range(40), groups=4, samples=4), 60_000, Numbers()
    text = section(records, room, known)
    assert 0.7 * room < len(text.encode()) + len(json_block(known.samples)) < 1.1 * room
    steps = [int(step) for step in re.findall(r'<details class="step" id="step-(\d+)"', text)]
    assert steps[0] == 39 and steps[-1] == 0 and len(steps) < 40


def test_samples_too_long_for_a_page_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(rollouts, "LARGEST_GROUP", 9_000)
    known = Numbers()
    text = section([example_record(0, 0, sample, completion="x" * 2_000) for sample in range(5)], PLENTY, known)
    assert (
        text.count("<article") == 2 == len(known.samples)
        and "<p>2 of 5" in text
        and "3 more samples are too long" in text
    )


def test_a_group_of_many_numbers_is_shown_in_part(monkeypatch) -> None:
    """Numbers count: 5 samples of 1,000 tokens have 1 kB of text each and about 6 kB of numbers."""
    monkeypatch.setattr(rollouts, "LARGEST_GROUP", 20_000)
    tokens = Tokens(("x",) * 1_000, entropy=tuple(place % 7 / 8 for place in range(1_000)))
    records = [example_record(0, 0, sample, completion="x" * 1_000, tokens=tokens) for sample in range(5)]
    text = section(records, 41_000, Numbers())  # a step may have half of it
    assert 1 <= text.count("<article") < 5 and "more samples are too long" in text
    assert f"<p>{text.count('<article')} of 5 recorded completions" in text


def test_a_group_at_its_largest_fits_into_a_step() -> None:
    assert rollouts.LARGEST_GROUP < SHARE * ROOM
