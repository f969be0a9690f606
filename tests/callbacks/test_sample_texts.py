r"""Completions as text: TensorBoard's own Markdown shows every character as it was written, whatever it is."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.plugin_util import markdown_to_safe_html

from r1_lightning.callbacks.sample_texts import (
    LONGEST,
    Sample,
    as_code,
    folded,
    markdown,
    plain,
    shown_samples,
    visible,
)
from r1_lightning.types.text import Problem

SAMPLE = Sample(
    prompt=1,
    rank="highest reward",
    question="2*3*4",
    answer="24",
    completion="<think>2*3=6</think>",
    reward=1.5,
    parts=[("accuracy", 1.0, "24 is right"), ("form", 0.5, "")],
    length=12,
    finished=True,
)
HOSTILE = [
    "2*3*4*5 and a_b_c",
    "<think>\n\nx\n\n\n</think>",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</code></pre><h1>out</h1>",
    "<!-- never closed",
    "<![CDATA[ x",
    "<?php x ?>",
    "`a` ```\ncode\n~~~~\n```",
    "# heading\n\n- list\n\n1. list\n\n> quote\n\n| a | b |\n|---|---|\n",
    "[x](javascript:alert(1)) ![y](http://example.org/y.png) http://example.org",
    "&amp; &lt; &#42;",
    "[id]: http://example.org 'title'\n[id]",
    "\\* \\\\ \\u202e",
    "一二三，四 😀 é",
]


def shown(text: str) -> list[str]:
    """The code blocks of TensorBoard's page, as a browser shows them."""
    page = markdown_to_safe_html(text)
    return [
        html.unescape(block).rstrip("\n") for block in re.findall(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_tensorboard_shows_it_as_it_was_written(text: str) -> None:
    samples = [replace(SAMPLE, completion=text), replace(SAMPLE, question=text, answer=text)]
    first, second = shown(markdown(samples))
    assert first == plain(samples[0]).rstrip("\n") and first.endswith(text.rstrip("\n"))
    assert second == plain(samples[1]) and f"question  {text.splitlines()[0]}" in second
    # Outside of the code blocks are our two headings and nothing else.
    rest = re.sub(r"<pre><code>.*?</code></pre>", "", markdown_to_safe_html(markdown(samples)), flags=re.DOTALL)
    assert [line for line in rest.splitlines() if line] == ["<h4>Prompt 2, highest reward</h4>"] * 2


def test_a_sample_says_question_answer_reward_by_part_and_why() -> None:
    assert plain(SAMPLE) == (
        "question  2*3*4\n"
        "answer    24\n"
        "reward    1.5\n"
        "  accuracy 1      24 is right\n"
        "  form     0.5\n"
        "completion of 12 tokens, ended:\n"
        "\n"
        "<think>2*3=6</think>"
    )
    assert "12 tokens, cut off:" in plain(replace(SAMPLE, finished=False))


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("\r", r"\x0d"),
        ("\x1b", r"\x1b"),
        ("\x00", r"\x00"),
        ("\u202e", r"\u202e"),
        ("\u2066", r"\u2066"),
        ("\u200b", r"\u200b"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("\n", "\n"),
        ("\t", "\t"),
        ("é", "é"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(character: str, expected: str) -> None:
    assert visible(f"a{character}b") == f"a{expected}b"
    visible(character).encode()  # a logger writes UTF-8


def test_a_carriage_return_does_not_leave_the_code_block() -> None:
    (block,) = shown(markdown([replace(SAMPLE, completion="a\r# b\r\n<b>c")]))
    assert block.endswith("a\\x0d# b\\x0d\n<b>c")


def test_a_long_text_keeps_both_ends() -> None:
    text = "a" * LONGEST + "b" * LONGEST  # 4000 of each, 2000 of each are shown
    assert visible(text) == "a" * 2000 + "\n[... 4000 characters ...]\n" + "b" * 2000
    assert visible("a" * LONGEST) == "a" * LONGEST


def test_long_lines_are_folded_and_say_so() -> None:
    # 110 columns: behind the mark of two columns 108 characters of the line have room
    assert folded("a" * 110) == "a" * 110
    assert folded("a" * 111 + "\nb") == "a" * 110 + "\n↳ a\nb"
    assert folded("a" * 220) == "a" * 110 + "\n↳ " + "a" * 108 + "\n↳ aa"
    assert folded("一" * 56) == "一" * 55 + "\n↳ 一"
    assert folded("") == ""
    assert f"    {'x' * 110}\n    ↳ x" in markdown([replace(SAMPLE, completion="x" * 111)])


def test_every_line_of_a_sample_is_indented() -> None:
    assert as_code("<think>\n1+1\n\n</think> 2") == "    <think>\n    1+1\n    \n    </think> 2"


def rollout_of(rewards: list[list[float]]) -> Any:
    prompts, size = len(rewards), len(rewards[0])
    lengths = torch.arange(prompts * size)  # row r has r tokens
    return SimpleNamespace(
        problems=[Problem(f"question {number}", f"{number}", f"{number}") for number in range(prompts)],
        texts=[f"text {row}" for row in range(prompts * size)],
        rewards=torch.tensor(rewards),
        parts={"half": torch.tensor(rewards) / 2, "silent": torch.zeros(prompts, size)},
        reasons={"half": [f"because {row}" for row in range(prompts * size)]},
        generation=SimpleNamespace(
            completion_mask=torch.arange(prompts * size) < lengths.unsqueeze(1),
            finished=lengths % 2 == 0,
        ),
    )


def test_of_each_group_the_highest_and_the_lowest_are_shown() -> None:
    samples = shown_samples(rollout_of([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [0.5, 1.0, 0.0]]))
    found = [(sample.prompt, sample.completion, sample.rank) for sample in samples]
    assert found == [
        (0, "text 1", "highest reward"),
        (0, "text 0", "lowest reward"),
        (1, "text 3", "all rewards equal"),
        (2, "text 7", "highest reward"),
        (2, "text 8", "lowest reward"),
    ]
    highest = samples[3]
    assert highest.question == "question 2" and highest.answer == "2" and highest.reward == 1.0
    assert highest.parts == [("half", 0.5, "because 7"), ("silent", 0.0, "")]
    assert (highest.length, highest.finished) == (7, False)


def test_four_prompts_are_shown_and_a_group_that_was_not_judged_is_no_harm() -> None:
    nan = float("nan")
    samples = shown_samples(rollout_of([[nan, nan]] * 6))
    assert [(sample.prompt, sample.rank) for sample in samples] == [(n, "all rewards equal") for n in range(4)]
    assert "reward    nan" in plain(samples[0])
