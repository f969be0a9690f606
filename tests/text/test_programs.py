"""Where a program stands in a completion."""

from __future__ import annotations

import pytest

from r1_lightning.text.programs import MAX_PROGRAM_CHARS, final_program, last_fenced, lenient_program

BLOCK = "```python\nprint(1)\n```"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (BLOCK, "print(1)\n"),
        ("```\nx\n```", "x\n"),
        ("  ```py\n  x\n  ```", "  x\n"),
        ("```Python3\nx\n```\nand so\n", "x\n"),
        (f"{BLOCK}\nbetter:\n```python\nprint(2)\n```", "print(2)\n"),
        (f"{BLOCK}\noutput:\n```text\n1\n```", "print(1)\n"),  # the last of Python
        (f"{BLOCK}\n```python\nprint(2)", "print(1)\n"),  # what is not closed is no block
        ("```python\nx = '```'\n```", "x = '```'\n"),  # backticks within a line are no fence
        ("```cpp\nint x;\n```", None),
        ("print(1)", None),
        ("```python\n```", ""),
        ("", None),
    ],
)
def test_last_fenced_block(text: str, program: str | None) -> None:
    assert last_fenced(text) == program


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        (f"<think>a</think><answer>{BLOCK}</answer>", "print(1)\n", "print(1)\n"),
        ("<think>a</think><answer>\nprint(1)\n</answer>", "print(1)", "print(1)"),
        (f"<think>{BLOCK}</think><answer>\n  x</answer>", "  x", "  x"),  # indentation is kept
        (f"<think>a</think>\n{BLOCK}", None, "print(1)\n"),
        (f"<answer>{BLOCK}", None, "print(1)\n"),
        ("<answer>a</answer><answer>b</answer>", None, "b"),
        ("<answer> </answer>", None, None),
        (f"{BLOCK}<answer></answer>", None, None),
        ("It is \\boxed{print(2)}", None, "print(2)"),
        ("print(1)", None, None),  # no block, no fence: anything could be meant
        ("<answer>" + "x" * (MAX_PROGRAM_CHARS + 1) + "</answer>", None, None),
        ("<answer>" + "x" * MAX_PROGRAM_CHARS + "</answer>", "x" * MAX_PROGRAM_CHARS, "x" * MAX_PROGRAM_CHARS),
    ],
)
def test_strict_and_lenient(text: str, strict: str | None, lenient: str | None) -> None:
    assert final_program(text) == strict
    assert lenient_program(text) == lenient


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"<think>a</think>\nHere:\n{BLOCK}\nIt prints 1.", "print(1)\n"),
        (f"<think>{BLOCK}</think>print(2)", None),  # code in a summary is marked, and the thinking is not looked at
        ("<think>a</think>It is \\boxed{print({2})}.", "print({2})"),
        (f"<think>a</think>\\boxed{{print(2)}}\n{BLOCK}", "print(1)\n"),  # a fence says more
        ("<think>\\boxed{print(3)}</think>print(2)", None),
        (f"<think>a</think><answer>{BLOCK}</answer>", None),
        (f"<think>a\n{BLOCK}", None),
    ],
)
def test_in_r1_s_form_the_program_stands_in_the_summary(text: str, program: str | None) -> None:
    assert final_program(text, "r1") == program
