"""The final summary of a response in each format."""

from __future__ import annotations

import pytest

from r1_lightning.text.response_parts import final_summary, part_of


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        (" <think>1+1=2</think> <answer> 2 </answer>", "2"),  # R1-Zero's form: the answer block
        ("<think>1+1=2</think>\n\nIt is **2**.\n", "It is **2**."),  # R1's form: what follows the thinking
        (" It is 2.", "It is 2."),  # nothing was thought
        ("<answer>2</answer>", "2"),
        ("</think> 2", "2"),  # the template had opened the block
        ("<think>1+1=2", None),  # cut off while thinking
        ("<think>1+1=2</think>", None),  # and nothing said
        ("<think>1+1=2</think> \n\u200b", None),
        ("<think>a</think> b <think>c</think> d", None),  # thinks again: which part is the summary?
        ("<think>a</think> b </think> c", None),
        ("", None),
        (" \n ", None),
        ("<think>a</think> <answer>1</answer> <answer>2</answer>", "<answer>1</answer> <answer>2</answer>"),
        ("<think> <answer>1</answer> </think> 2", "2"),  # an answer inside the thinking is none
    ],
)
def test_final_summary(text: str, summary: str | None) -> None:
    assert final_summary(text) == summary


def test_parts_begin_with_one_space() -> None:
    text = "\n <think>1+1=2</think> <answer>2</answer>\n"
    assert part_of(text, "summary") == " 2"
    assert part_of(text, "whole") == " <think>1+1=2</think> <answer>2</answer>"
    assert part_of("<think>never ends", "summary") is None
    assert part_of("<think>never ends", "whole") == " <think>never ends"
    assert part_of(" \t\n", "whole") is None
