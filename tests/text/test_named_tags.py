"""Tags that the thinking only mentions, rule by rule; whole completions are in test_reasoning_format.py."""

from __future__ import annotations

import re

import pytest

from r1_lightning.text.named_tags import real_tags


def kept(text: str) -> list[str]:
    tags = [(match[0], match.start(), match.end()) for match in re.finditer("</?(?:think|answer)>", text)]
    return [tag for tag, _, _ in real_tags(text, tags)]


WHOLE = ["<think>", "</think>"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>in <answer> we</think>", WHOLE),  # by the word before it
        ("<think>so <answer> tags</think>", WHOLE),  # by the word behind it
        ("<think>so <answer> we</think>", ["<think>", "<answer>", "</think>"]),  # by neither
        ("<think>in <answer>5</answer></think>", ["<think>", "<answer>", "</answer>", "</think>"]),
        ("<think>so <think> </think> x</think>", WHOLE),
        ("<think>so <think>x</think> y</think>", ["<think>", "<think>", "</think>", "</think>"]),
        ("<think> <answer> tags</think>", ["<think>", "<answer>", "</think>"]),  # nothing is said before it
        ("<think>in <answer> tags", ["<think>", "<answer>"]),  # no end of the thinking
        ("in <answer> tags", ["<answer>"]),
        ("<think>x</think>in <answer> tags", [*WHOLE, "<answer>"]),
        ("", []),
    ],
)
def test_which_tags_are_left(text: str, left: list[str]) -> None:
    assert kept(text) == left
