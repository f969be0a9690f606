"""One sample: what is right and well-formed, its HTML, its numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from r1_lightning.review.page.samples import (
    ENDS,
    LONGEST_TEXT,
    anchor,
    article,
    completion,
    is_right,
    is_well_formed,
    mean_reward,
    numbers,
)
from r1_lightning.review.rollout_records import Part, Tokens
from tests.support.example_records import example_record


def parts(**scores: float | None) -> tuple[Part, ...]:
    return tuple(Part(name, score, 1.0, "why") for name, score in scores.items())


def test_anchors() -> None:
    assert anchor(example_record(12, 3, 4)) == "step-12-prompt-3-sample-4"
    held_out = {"source": "evaluation", "evaluation": 'Val <"> 因\n2'}
    assert anchor(example_record(12, 3, 4, **held_out)) == "evaluation-val-2-12-prompt-3-sample-4"
    assert anchor(example_record(12, 3, 4, source="evaluation")) == "evaluation-12-prompt-3-sample-4"


@pytest.mark.parametrize(
    ("changes", "right", "well_formed"),
    [
        ({"parts": parts(accuracy=1.0, format=0.0)}, True, False),
        ({"parts": parts(accuracy=0.0, format=1.0)}, False, True),
        ({"parts": parts(accuracy=0.5, format=0.5)}, False, False),
        ({"parts": parts(accuracy=None, format=None)}, False, False),
        ({"parts": parts(helpful=2.0), "reward": 2.0, "finished": True}, True, True),
        ({"parts": (), "reward": None, "finished": False}, False, False),
    ],
)
def test_right_and_well_formed(changes: dict[str, Any], right: bool, well_formed: bool) -> None:
    record = example_record(**changes)
    assert (is_right(record), is_well_formed(record)) == (right, well_formed)
    assert numbers(record)["w"] == int(well_formed and not right)


def test_an_article_says_reward_parts_and_why() -> None:
    record = example_record(0, 0, 1, advantage=-0.5, reward=1.0, length=7)
    text = re.sub(r"<[^>]+>", "", article(record, 0, "name"))
    assert text.startswith("sample 1: reward 1, advantage -0.5, 7 tokens")
    assert "accuracy 0 × 1: answered &#x27;43&#x27;, expected &#x27;42&#x27;" in text and "answer taken: 43" in text
    assert 'id="name"' in article(record, 0, "name") and "id=" not in article(record, 0)
    cut_off = article(example_record(0, 0, 3, reward=None, advantage=None), 0)
    assert "reward <b>no number</b>" in cut_off and "cut off" in cut_off and "advantage" not in cut_off


@pytest.mark.parametrize("field", ["completion", "extracted", "prompt"])
def test_hostile_text_is_text(field: str) -> None:
    record = example_record(**{field: '</pre></script><img src=x onerror="alert(1)">\u202e\0'})
    text = article(record, 0, anchor(record))
    assert "<img" not in text and "</script" not in text and "\u202e" not in text and "\0" not in text
    hostile = example_record(parts=(Part("<b onclick=x>", 1.0, 1.0, "<script>"),))
    assert "<b onclick" not in article(hostile, 0) and "<script>" not in article(hostile, 0)


def columns(text: tuple[str, ...], **more: Any) -> Tokens:
    return Tokens(text, **more)


def test_numbers_of_tokens() -> None:
    """Lengths in UTF-16 units: an emoji has 2, a mark of direction is shown by 6 letters (U+202E)."""
    tokens = columns(
        ("a", "😀", "\u202e", "<eos>"),
        sampler_logprob=(-0.5, -1.0004, None, -0.25),
        policy_logprob=(-0.5001, -1.0, -0.1, -0.25),
        entropy=(0.1, 0.1, 0.1, 0.1),
        advantage=(-1.5, -1.5, -1.5, -1.5),
    )
    found = numbers(example_record(completion="a😀\u202e", tokens=tokens, reward=1.0, advantage=-1.5, length=4))
    assert found == {
        "r": 1.0, "a": -1.5, "n": 4, "w": 0, "m": 0, "u": 0,
        "t": [1, 2, 6, 5], "s": [-500, -1000, None, -250], "d": [-1, 4, None, 0], "e": 100, "A": -1500,
    }  # fmt: skip


def test_columns_that_are_not_known_are_left_out() -> None:
    found = numbers(example_record(completion="ab", tokens=columns(("a", "b"))))
    assert found["t"] == [1, 1] and not {"s", "d", "e", "A"} & set(found)
    assert "t" not in numbers(example_record(tokens=Tokens()))


def test_the_end_token_stands_after_the_text() -> None:
    assert completion(example_record(completion="ab", tokens=columns(("a", "b", "<eos>")))) == (
        '<pre class="text" dir="auto">\nab<i class="end">&lt;eos&gt;</i></pre>'
    )


def test_tokens_that_are_recorded_in_part_need_no_text_of_their_own() -> None:
    assert (
        completion(example_record(completion="abc", tokens=columns(("a", "b"))))
        == '<pre class="text" dir="auto">\nabc</pre>'
    )


def test_tokens_that_do_not_make_the_text_stand_beside_it() -> None:
    text = completion(example_record(completion="é", tokens=columns(("\ufffd", "\ufffd"))))
    assert text == '<pre class="text" dir="auto">\né</pre><pre class="pieces" dir="auto" hidden>\n\ufffd\ufffd</pre>'


def test_a_text_without_bounds_is_shown_by_its_ends() -> None:
    text = completion(example_record(completion="x" * (LONGEST_TEXT + 1), tokens=columns(("x",))))
    assert f"<b>{LONGEST_TEXT + 1 - 2 * ENDS:,} characters are left out here</b>" in text and len(text) < 3 * ENDS
    assert len(completion(example_record(completion="x" * 1_000_000))) > 1_000_000, "1 MB is whole"
    assert "left out" in completion(example_record(completion="&" * 1_000_000)), "5 bytes each"
    assert "t" not in numbers(example_record(completion="&" * 1_000_000))


def test_mean_reward_leaves_out_what_is_no_number() -> None:
    assert mean_reward([example_record(reward=reward) for reward in (1.0, None, 2.0)]) == 1.5
    assert str(mean_reward([example_record(reward=None)])) == "nan"


def test_log_probs_without_bounds_are_not_known() -> None:
    """-1e308 in thousandths of a nat, and the difference of two such numbers, are beyond the largest float."""
    tokens = columns(("a", "b"), sampler_logprob=(-1e308, -1.0), policy_logprob=(1e308, -1.0))
    found = numbers(example_record(completion="ab", tokens=tokens))
    assert found["s"] == [None, -1000] and found["d"] == [None, 0]
