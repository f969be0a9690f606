"""The strict format: what is well formed, which rule a broken text breaks, and that hostile text costs linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
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
def test_any_text_gives_known_faults_and_answers_without_tags(text: str) -> None:
    parsed = parse(text)
    assert set(parsed.faults) <= set(FAULTS)
    assert len(parsed.faults) == len(set(parsed.faults))
    assert parsed.answer is None or not any(tag in parsed.answer for tag in TAGS)
    if parsed.well_formed:  # then the two blocks are all there is
        rest = text.replace(f"<think>{parsed.think}</think>", "").replace(f"<answer>{parsed.answer}</answer>", "")
        assert not has_visible_text(rest)


@given(PIECES)
def test_a_second_answer_block_never_keeps_the_form(text: str) -> None:
    parsed = parse(f"<think>a</think><answer>5</answer>{text}<answer>6</answer>")
    assert parsed.answer is None
    assert not parsed.well_formed


# Thinking that names tags: text, then what is thought and answered.
NAMING = [
    ("I will put it in <answer> tags. 2+3=5", "5"),
    ("Then I close with </answer> at the end.", "5"),
    ("The form asks for <answer> and </answer>; so be it.", "5"),
    ("As asked: <think> </think> <answer> </answer> tags, in this order.", "5"),
    ("i.e., <think> reasoning process here </think> <answer> answer here </answer>. So 2+3=5", "5"),
    ("The `<answer>` tag holds the number, `<think>` this text.", "5"),
    ("2+3=5, and now the <answer>.", "5"),
    ("答案放在<answer>标签里，用<answer>和</answer>包住", "5"),
    ('Two tags, "<think>" and "<answer>", are needed.', "5"),
    ("I am within <think> and go on: the <answer> comes last", "5"),
]


@pytest.mark.parametrize(("thinking", "answer"), NAMING)
def test_a_tag_that_is_only_named_in_the_thinking_costs_nothing(thinking: str, answer: str) -> None:
    parsed = parse(f"<think> {thinking} </think> <answer>{answer}</answer>")
    assert (parsed.think, parsed.answer, parsed.faults) == (f" {thinking} ", answer, ())
    r1 = parse_r1(f"<think> {thinking} </think> It is {answer}.")
    assert (r1.think, r1.answer, r1.faults) == (f" {thinking} ", f" It is {answer}.", ())
    assert FORMS["r1_zero_opened"].parse(f"{thinking} </think> <answer>{answer}</answer>").well_formed
    assert FORMS["r1_opened"].parse(f"{thinking}</think>{answer}").well_formed


# What an attacker would write: none keeps the form, and none is right by an answer that is not the last and only one.
ATTACKS = [
    "<think>a <answer>5</answer></think><answer>6</answer>",  # two answers, one hidden in the thinking
    "<think>in <answer>5</answer> or so</think><answer>6</answer>",
    "<think>use <answer>5</answer>, then</think>",  # the only one in the thinking
    "<think>tags <answer>4</answer><answer>5</answer></think><answer>6</answer>",
    "<think>a <answer>5</think><answer>6</answer>",  # opened and never closed
    "<think>a</think><answer>5</answer><answer>6</answer>",
    "<think>a</think><answer>in <answer> tags 5</answer>",  # the answer names nothing
    "<think>a</think><answer>5</answer> in <answer> tags",
    "<think>a</think> in <answer> tags <answer>5</answer>",
    "<think>a</think><think>b</think><answer>5</answer>",
    "<think>a <think>b</think> c</think><answer>5</answer>",
    "<think><think>a</think><answer>5</answer>",
    "<think><answer> tags</think><answer>5</answer>",  # nothing but a tag to begin with
    "<think>a <think>x</think> tags</think><answer>5</answer>",
    "<answer>5</answer><think>in <answer> tags</think>",
    "in <answer> tags <think>a</think><answer>5</answer>",
    "<think>in <answer> tags <answer>5</answer>",  # the thinking never ends
    "<think>in <answer> tags</think><answer> </answer>",
    "<think> <think> </think> </think><answer>5</answer>",  # a quoted pair needs something said before it
    "<think>a</think></answer><answer>5</answer>",
    "<think>in <answer> tags</think></think><answer>5</answer>",
    "</think>in <answer> tags<think><answer>5</answer>",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_blocks_that_are_doubled_nested_or_reordered_stay_punished(text: str) -> None:
    assert parse(text).faults != ()


def test_no_answer_is_read_beside_another_or_in_the_thinking() -> None:
    for text in ATTACKS[:8] + ATTACKS[16:17]:
        assert parse(text).answer is None, text


@given(st.sampled_from(["<answer>5</answer>", "<answer>5 apples</answer>", "<answer>\\boxed{5}</answer>"]), PIECES)
def test_a_whole_answer_block_in_the_thinking_is_never_a_name(block: str, text: str) -> None:
    assert not parse(f"<think>so {block}{text}</think><answer>6</answer>").well_formed


def test_a_prompt_that_opened_the_think_block_leaves_its_end_to_the_completion() -> None:
    opened, r1 = FORMS["r1_zero_opened"].parse, FORMS["r1_opened"].parse
    assert opened("2+3=5</think><answer>5</answer>").faults == ()
    assert r1("\n2+3=5\n</think>\n\nIt is \\boxed{5}.").answer == "5" and r1("2+3</think>5").well_formed
    for text, fault in {
        "<think>a</think>5": "several_think",  # opens again what is open
        "5": "unclosed_think",
        "</think>5": "empty_think",
        "a</think>": "missing_summary",
        "a</think>b</think>c": "several_think",
        "a</think>b<answer>c</answer>": "tag_in_summary",
        "": "unclosed_think",
    }.items():
        assert fault in r1(text).faults, text
    assert r1("</think>5", allow_empty_think=True).well_formed
    assert {name for name, form in FORMS.items() if form.is_opened} == {"r1_zero_opened", "r1_opened"}
    for form in FORMS.values():
        rest = "5</answer>" if form.has_answer_block else "5"
        assert form.parse(form.empty_think + rest, allow_empty_think=True).well_formed


@pytest.mark.parametrize(
    "text",
    [
        "<think>a" + "in <answer> tags " * 60_000 + "</think>",
        "<think>a" + " <think> </think>" * 60_000 + "</think>",
        "<think>a" + "<answer>5</answer>" * 60_000 + "</think>",
        "<think>" + " " * 500_000 + "<answer>" * 60_000 + "</think>",
        "<" * 1_000_000,
        "<think>" * 150_000,
        "<answer>" * 60_000 + "</answer>" * 60_000,
        "<think>" + "a <" * 300_000,
        "<think>" + " " * 1_000_000 + "x",
        "<think>a</think>" + "\u200b" * 1_000_000,
    ],
    ids=["named", "quoted", "real", "blank", "less-than", "think", "answers", "almost-tags", "spaces", "zero-width"],
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
@example("<think>0<answer></think>")
def test_any_text_gives_known_faults_of_r1_and_answers_without_tags(text: str) -> None:
    parsed = parse_r1(text)
    assert set(parsed.faults) <= set(R1_FAULTS) and len(parsed.faults) == len(set(parsed.faults))
    for body in (parsed.summary, parsed.answer):  # the thinking may name a tag: "<think>0<answer></think>"
        assert body is None or not any(tag in body for tag in TAGS)
    if parsed.well_formed:
        assert text.strip().startswith("<think>") and text.endswith(f"{parsed.think}</think>{parsed.summary}")


@given(PIECES)
def test_the_summary_of_r1_zero_is_its_answer(text: str) -> None:
    assert parse(text).summary == parse(text).answer
