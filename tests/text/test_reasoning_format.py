"""The strict format: what is well formed, which rule a broken text breaks, and that hostile text costs linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.text.reasoning_format import FAULTS, FORMS, R1_FAULTS, TAGS, has_visible_text, parse, parse_r1

BODY = st.text(min_size=1).filter(lambda text: has_visible_text(text) and not any(tag in text for tag in TAGS))
BLANK = st.text(alphabet=" \t\n\u3000", max_size=4)
PIECES = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=3)), max_size=12).map("".join)

GOOD = "<think> 2+3=5 </think> <answer> 5 </answer>"

# One text per way to break the format: text, think body, answer body, faults.
BROKEN = [
    ("", None, None, ("missing_think", "missing_answer")),
    ("5", None, None, ("missing_think", "missing_answer", "text_outside")),
    ("<answer>5</answer>", None, "5", ("missing_think",)),
    ("<think>a</think>", "a", None, ("missing_answer",)),
    ("<think>a</think> 5", "a", None, ("missing_answer", "text_outside")),
    ("<think></think><answer>5</answer>", "", "5", ("empty_think",)),
    ("<think> \n</think><answer>5</answer>", " \n", "5", ("empty_think",)),
    ("<think>a</think><answer></answer>", "a", "", ("empty_answer",)),
    ("<think>a</think><answer>\u200b</answer>", "a", "\u200b", ("empty_answer",)),
    ("<think>a</think><answer>5", "a", None, ("unclosed_answer",)),
    ("<think>a<answer>5</answer>", None, "5", ("unclosed_think",)),
    ("a</think><answer>5</answer>", None, "5", ("unopened_think", "text_outside")),
    ("<think>a</think>5</answer>", "a", None, ("unopened_answer", "text_outside")),
    ("<think>a</think><think>b</think><answer>5</answer>", None, "5", ("several_think",)),
    ("<think>a</think><answer>5</answer><answer>6</answer>", "a", None, ("several_answer",)),
    ("<think>a</think><answer>5</answer></answer>", "a", None, ("several_answer",)),
    ("<think>a<answer>5</answer></think>", None, None, ("nested",)),
    ("<answer>5<think>a</think></answer>", None, None, ("wrong_order", "nested")),
    ("<think>a</think><answer><think>5</answer>", None, None, ("several_think", "nested")),
    ("<answer>5</answer><think>a</think>", "a", "5", ("wrong_order",)),
    ("<think>a</think></answer>5<answer>", "a", None, ("wrong_order", "text_outside")),
    ("So: " + GOOD, " 2+3=5 ", " 5 ", ("text_outside",)),
    (GOOD + " done", " 2+3=5 ", " 5 ", ("text_outside",)),
    ("<think>a</think> so <answer>5</answer>", "a", "5", ("text_outside",)),
]


@pytest.mark.parametrize(("text", "think", "answer", "faults"), BROKEN, ids=[repr(row[0]) for row in BROKEN])
def test_each_broken_rule_is_named(text: str, think: str | None, answer: str | None, faults: tuple[str, ...]) -> None:
    parsed = parse(text)
    assert (parsed.think, parsed.answer) == (think, answer)
    assert parsed.faults == faults
    assert not parsed.well_formed


def test_every_fault_is_shown_above_and_has_a_description() -> None:
    assert {fault for row in BROKEN for fault in row[3]} == set(FAULTS)


def test_good_text_gives_both_bodies_as_written() -> None:
    parsed = parse(GOOD)
    assert parsed.well_formed
    assert (parsed.think, parsed.answer) == (" 2+3=5 ", " 5 ")


@pytest.mark.parametrize("text", ["<Think>a</Think><answer>5</answer>", "< think>a</think><answer>5</answer>"])
def test_tags_are_literal(text: str) -> None:
    assert not parse(text).well_formed


def test_empty_think_is_allowed_only_on_request_and_empty_answer_never() -> None:
    assert not parse("<think></think><answer>5</answer>").well_formed
    assert parse("<think></think><answer>5</answer>", allow_empty_think=True).well_formed
    assert parse("<think></think><answer></answer>", allow_empty_think=True).faults == ("empty_answer",)


@given(BLANK, BODY, BLANK, BODY, BLANK)
def test_white_space_may_stand_around_the_blocks(
    before: str, think: str, between: str, answer: str, after: str
) -> None:
    parsed = parse(f"{before}<think>{think}</think>{between}<answer>{answer}</answer>{after}")
    assert (parsed.think, parsed.answer, parsed.faults) == (think, answer, ())


@given(BODY)
def test_visible_text_at_any_border_is_a_fault(extra: str) -> None:
    for text in (extra + GOOD, GOOD + extra, GOOD.replace("</think>", "</think>" + extra)):
        assert "text_outside" in parse(text).faults


@given(PIECES)
def test_any_text_gives_known_faults_and_bodies_without_tags(text: str) -> None:
    parsed = parse(text)
    assert set(parsed.faults) <= set(FAULTS)
    assert len(parsed.faults) == len(set(parsed.faults))
    for body in (parsed.think, parsed.answer):
        assert body is None or not any(tag in body for tag in TAGS)
    if parsed.well_formed:  # then the two blocks are all there is
        rest = text.replace(f"<think>{parsed.think}</think>", "").replace(f"<answer>{parsed.answer}</answer>", "")
        assert not has_visible_text(rest)


@given(PIECES)
def test_a_second_answer_block_never_keeps_the_form(text: str) -> None:
    parsed = parse(f"<think>a</think><answer>5</answer>{text}<answer>6</answer>")
    assert parsed.answer is None
    assert not parsed.well_formed


@pytest.mark.parametrize(
    "text",
    [
        "<" * 1_000_000,
        "<think>" * 150_000,
        "<answer>" * 60_000 + "</answer>" * 60_000,
        "<think>" + "a <" * 300_000,
        "<think>" + " " * 1_000_000 + "x",
        "<think>a</think>" + "\u200b" * 1_000_000,
    ],
    ids=["less-than", "think", "answers", "almost-tags", "spaces", "zero-width"],
)
def test_hostile_megabytes_take_linear_time(text: str) -> None:
    start_s = time.perf_counter()
    assert not parse(text).well_formed
    # A scan of quadratic time would take hours for a million characters; a linear one takes a fraction of a second.
    assert time.perf_counter() - start_s < 10


# ------------------------------------------------------------------------------------------------------------- R1's form

# text, think body, summary, answer, faults
R1_TEXTS = [
    ("<think> 2+3=5 </think>The sum is \\boxed{5}.", " 2+3=5 ", "The sum is \\boxed{5}.", "5", ()),
    (
        " <think>a</think>\n\nFirst,\nso \\boxed{4} or \\boxed{5}.",
        "a",
        "\n\nFirst,\nso \\boxed{4} or \\boxed{5}.",
        "5",
        (),
    ),
    ("<think>a</think> 5", "a", " 5", " 5", ()),  # nothing but the answer
    ("<think>a</think>\n5\n", "a", "\n5\n", "\n5\n", ()),
    ("<think>a</think>It is\n5", "a", "It is\n5", None, ()),  # several lines, no box: no place for an answer
    (
        "<think>\\boxed{4}</think>5 it is",
        "\\boxed{4}",
        "5 it is",
        "5 it is",
        (),
    ),  # a box in the thinking is none of the summary
    ("<think>a</think>\\boxed{5", "a", "\\boxed{5", None, ()),
    ("", None, "", "", ("missing_think", "missing_summary")),
    ("5", None, "5", "5", ("missing_think",)),
    ("<answer>5</answer>", None, None, None, ("missing_think", "tag_in_summary")),
    ("<think>a", None, None, None, ("unclosed_think",)),
    ("a</think>5", None, "5", "5", ("unopened_think",)),
    ("<think>a</think>", "a", "", "", ("missing_summary",)),
    ("<think>a</think>\u200b", "a", "\u200b", "\u200b", ("missing_summary",)),
    ("<think> </think>5", " ", "5", "5", ("empty_think",)),
    ("So: <think>a</think>5", "a", "5", "5", ("text_outside",)),
    ("<think>a</think><answer>5</answer>", "a", None, None, ("tag_in_summary",)),
    ("<think>a</think>5<think>b</think>6", None, None, None, ("several_think",)),
    ("<think>a</think>5</think>6", None, None, None, ("several_think",)),
    ("</think>5<think>", None, None, None, ("wrong_order",)),
    ("<think><answer>4</answer></think>5", None, "5", "5", ("nested",)),
]


@pytest.mark.parametrize(
    ("text", "think", "summary", "answer", "faults"), R1_TEXTS, ids=[repr(row[0]) for row in R1_TEXTS]
)
def test_r1_by_hand(
    text: str, think: str | None, summary: str | None, answer: str | None, faults: tuple[str, ...]
) -> None:
    parsed = FORMS["r1"].parse(text)
    assert (parsed.think, parsed.summary, parsed.answer, parsed.faults) == (think, summary, answer, faults)


def test_every_fault_of_r1_is_shown_above_and_has_a_description() -> None:
    assert {fault for row in R1_TEXTS for fault in row[4]} == set(R1_FAULTS) == set(FORMS["r1"].faults)
    assert FORMS["r1_zero"].faults is FAULTS and FORMS["r1_zero"].parse is parse


def test_r1_allows_an_empty_think_on_request() -> None:
    assert parse_r1("<think></think>5", allow_empty_think=True).well_formed
    assert not parse_r1("<think></think>", allow_empty_think=True).well_formed


@given(BODY, BLANK, BODY)
def test_no_text_is_well_formed_in_both_forms(think: str, between: str, answer: str) -> None:
    r1_zero = f"<think>{think}</think>{between}<answer>{answer}</answer>"
    r1 = f"<think>{think}</think>{between}{answer}"
    assert parse(r1_zero).well_formed and not parse_r1(r1_zero).well_formed
    assert parse_r1(r1).well_formed and not parse(r1).well_formed


@given(PIECES)
def test_any_text_gives_known_faults_of_r1_and_bodies_without_tags(text: str) -> None:
    parsed = parse_r1(text)
    assert set(parsed.faults) <= set(R1_FAULTS) and len(parsed.faults) == len(set(parsed.faults))
    for body in (parsed.think, parsed.summary, parsed.answer):
        assert body is None or not any(tag in body for tag in TAGS)
    if parsed.well_formed:
        assert text.strip().startswith("<think>") and text.endswith(f"{parsed.think}</think>{parsed.summary}")


@given(PIECES)
def test_the_summary_of_r1_zero_is_its_answer(text: str) -> None:
    assert parse(text).summary == parse(text).answer
