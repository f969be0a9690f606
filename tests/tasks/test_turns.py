"""Conversations in every spelling that is published: thinking in fields, parts and tags, several turns, calls of tools."""

from __future__ import annotations

from typing import Any

import pytest

from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.turns import Dialogue, dialogue_of, with_thinking, without_thinking
from r1_lightning.text.reasoning_format import parse_r1
from r1_lightning.types.errors import InvalidInput

USER = {"role": "user", "content": "1+1?"}
THOUGHT = "<think>\none and one\n</think>\n\n2"


def read(messages: Any, ends_with_reply: bool = True) -> Dialogue:
    return dialogue_of(Row({"m": messages}, "file, line 1"), "m", ends_with_reply)


REPLIES: dict[str, dict[str, Any]] = {
    "DeepSeek's API": {"role": "assistant", "reasoning_content": "one and one", "content": "2"},
    "vLLM": {"role": "assistant", "reasoning": "one and one", "content": "2", "tool_calls": []},
    "gpt-oss": {"role": "assistant", "thinking": "one and one\n", "content": "2", "function_call": None},
    "two fields that agree": {
        "role": "assistant",
        "reasoning": "one and one",
        "thinking": "one and one",
        "content": "2",
    },
    "Anthropic's parts": {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "one and one"}, {"type": "text", "text": "2"}],
    },
    "Parquet's nulls": {
        "role": "assistant",
        "reasoning_content": "one and one",
        "content": "2",
        "thinking": None,
        "tool_calls": None,
    },
    "in the text, too": {"role": "assistant", "reasoning_content": "one and one", "content": THOUGHT},
    "ShareGPT": {"from": "gpt", "value": THOUGHT},
    "opened by the prompt": {
        "role": "assistant",
        "reasoning_content": "one and one",
        "content": "\none and one\n</think>\n\n2",
    },
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_thinking_becomes_that_of_the_reply(reply: dict[str, Any]) -> None:
    found = read([USER, reply])
    assert found == Dialogue("1+1?", THOUGHT)
    parsed = parse_r1(found.reply)
    assert parsed.think is not None and parsed.think.strip() == "one and one" and parsed.well_formed


def test_the_marks_of_sky_t1_are_tags() -> None:
    value = (
        "<|begin_of_thought|>\n\none and one\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n2\n\n<|end_of_solution|>"
    )
    found = read([{"from": "user", "value": "1+1?"}, {"from": "assistant", "value": value}])
    parsed = parse_r1(found.reply)
    assert (
        parsed.well_formed and (parsed.think or "").strip() == "one and one" and (parsed.summary or "").strip() == "2"
    )
    assert "<|" not in found.reply


def test_text_of_parts_and_text_without_thinking_stay_as_they_are() -> None:
    parts = [{"type": "text", "text": "1"}, {"text": "+1?"}]
    assert read([{"role": "user", "content": parts}, {"role": "assistant", "content": " 2 "}]) == Dialogue(
        "1\n+1?", " 2 "
    )
    assert with_thinking(Row({}, "x"), "c", " 2", " \n") == " 2"


def test_several_turns_and_a_system_message() -> None:
    """Two turns that are over and a third with its reply; the first reply's thinking is not shown again."""
    messages = [
        {"role": "developer", "content": " Be brief. "},
        {"role": "user", "content": "a "},
        {"role": "assistant", "content": "b", "reasoning_content": "thought"},
        {"role": "human", "content": "c"},
        {"role": "model", "content": "<think>x</think>d"},
        {"role": "user", "content": "e"},
        {"role": "assistant", "content": "f", "thinking": "y"},
    ]
    found = read(messages)
    earlier = (("a", "b"), ("c", "d"))
    assert (found.question, found.reply, found.earlier) == ("e", "<think>\ny\n</think>\n\nf", earlier)
    assert found.asked == ("a", "c", "e")
    assert found.shown() == ("e", (("Be brief.\n\na", "b"), ("c", "d")))
    assert found.shown(with_system=False) == ("e", earlier)
    assert read(messages[:-1], ends_with_reply=False).question == "e"
    assert read([{"role": "system", "content": ""}, USER], False).shown() == ("1+1?", ())
    assert read([{"role": "system", "content": "S"}, USER], False).shown() == ("S\n\n1+1?", ())


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("<think>a</think> b", "b"),
        ("b", "b"),
        ("a</think>b", "b"),
        ("<think>a</think>", "<think>a</think>"),
        (" b\n", "b"),
    ],
)
def test_a_reply_of_an_earlier_turn_is_what_its_reader_saw(reply: str, shown: str) -> None:
    assert without_thinking(reply) == shown


CALL = {"name": "f", "arguments": "{}"}
REFUSED: dict[str, tuple[Any, str]] = {
    "thinking that differs": (
        [USER, {"role": "assistant", "reasoning_content": "two", "content": THOUGHT}],
        r"m\[1\]: content=.*thinking stands beside the text and in it, and the two differ",
    ),
    "fields that differ": (
        [USER, {"role": "assistant", "reasoning_content": "a", "thinking": "b", "content": "2"}],
        r"m\[1\]: thinking='b' is not allowed: reasoning_content holds other thinking",
    ),
    "parts and tags that differ": (
        [
            USER,
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "b"}, {"type": "text", "text": THOUGHT}],
            },
        ],
        "the two differ",
    ),
    "thinking never closed": (
        [USER, {"role": "assistant", "reasoning_content": "one and one", "content": "<think>one and one"}],
        "the two differ",
    ),
    "a number for thinking": ([USER, {"role": "assistant", "thinking": 3, "content": "2"}], "thinking=3"),
    "calls beside text": (
        [USER, {"role": "assistant", "content": "I look.", "tool_calls": [{"function": CALL}]}],
        r"m\[1\]: tool_calls=.*calls of tools are not read",
    ),
    "calls alone": (
        [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
        "calls of tools are not read",
    ),
    "the old call": ([USER, {"role": "assistant", "content": "x", "function_call": CALL}], "function_call="),
    "calls in an earlier turn": (
        [
            USER,
            {"role": "assistant", "content": "x", "tool_calls": [CALL]},
            USER,
            {"role": "assistant", "content": "y"},
        ],
        r"m\[1\]: tool_calls=",
    ),
    "tools offered": (
        [{**USER, "tools": [CALL]}, {"role": "assistant", "content": "x"}],
        r"m\[0\]: tools=.*calls of tools are not read",
    ),
    "a tool speaks": ([USER, {"role": "tool", "content": "x"}], "turns of tools are not read"),
    "observation": ([{"from": "human", "value": "x"}, {"from": "observation", "value": "y"}], "from='observation'"),
    "a picture": (
        [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "x"}],
        "only parts of text and of thinking",
    ),
    "empty reply": ([USER, {"role": "assistant", "content": ""}], r"m\[1\]: content=''"),
    "assistant first": ([{"role": "assistant", "content": "x"}, USER], "in turns, the user first"),
    "user last": ([USER], r"m=\['user'\].*the last one of the assistant"),
    "no list": ({"role": "user"}, "it must be a list of messages"),
    "nothing": ([], r"m=\[\]"),
    "no role": ([{"content": "x"}], r"m\[0\]: the field 'role' is missing"),
}


@pytest.mark.parametrize(("messages", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_one_line(messages: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        read(messages)
    assert "\n" not in str(refused.value) and str(refused.value).startswith("file, line 1")
