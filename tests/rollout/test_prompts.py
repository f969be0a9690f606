"""Prompts of one turn and of several, as token ids by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r1_lightning.rollout.chat_rows import ChatRow, chat_rows
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.text.chat_template import R1
from r1_lightning.text.checkpoint_template import read_template
from r1_lightning.text.tokenizer import TextTokenizer, train_tokenizer
from r1_lightning.types.text import ChatExample, Problem, Trace
from tests.rollout.test_preference_rows import TEMPLATE, WithBos, Words
from tests.support.chat_templates import CHATML, chat_folder

EARLIER = (("sum", " fine "),)
ASKED = [
    Trace("sum", ""),
    Trace("sum", "", EARLIER),
    Problem("sum", "", "p", earlier=[["sum", "fine"], ["sum", "sum"]]),
]


def test_ids_by_hand() -> None:
    """Q: sum A: -> 10 11 12; fine -> 13; EOS is 1, after each reply."""
    words: Any = Words()
    once, reply = [10, 11, 12], [13, 1]
    assert prompt_ids(ASKED, words, TEMPLATE) == [once, once + reply + once, once + reply + once + [11, 1] + once]


def test_what_begins_a_text_stands_once() -> None:
    words: Any = WithBos()
    once, reply = [10, 11, 12], [13, 1]
    assert prompt_ids(ASKED[:2], words, TEMPLATE) == [[2, *once], [2, *once, *reply, *once]]


def test_only_the_last_reply_is_learned() -> None:
    words: Any = Words()
    example = ChatExample("sum", "sum", earlier=EARLIER)
    assert chat_rows([(example, example.completion)], words, TEMPLATE) == [
        ChatRow((10, 11, 12, 13, 1, 10, 11, 12), (11, 1))
    ]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(iter(["the sum is five"] * 20), 300, R1.phrases())


def test_a_conversation_is_what_it_was_when_it_was_held(tokenizer: TextTokenizer) -> None:
    """The first prompt with its reply and EOS, as fine-tuning has them, and then the next prompt."""
    first = chat_rows([("1+1", "two")], tokenizer, R1)[0]
    (found,) = prompt_ids([Problem("2+2", "4", "p", earlier=(("1+1", "two"),))], tokenizer, R1)
    assert found == [*first.prompt, *first.completion, *tokenizer.encode(R1.render("2+2"))]
    assert tokenizer.decode(found, skip_special=False) == (
        "User: 1+1\n\nAssistant: two<｜end▁of▁sentence｜>User: 2+2\n\nAssistant:"
    )


def test_a_checkpoint_s_template_writes_the_conversation_with_its_system_message(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, CHATML)
    tokenizer = TextTokenizer.load(folder)
    template = read_template(folder, "checkpoint", tokenizer.control, "!")
    tokenizer = tokenizer.ending_with(template.end)
    told = {"system": "S"}
    asked = [
        Problem("S\n\nb", "", "p", metadata=told),
        ChatExample("b", "B", "", told, (("S\n\na", "A"),)),
        ChatExample("b", "B", "", told),  # the task hides it
    ]
    found = tokenizer.decode_batch(prompt_ids(asked, tokenizer, template, " <x>"), skip_special=False)
    start, end = "<|im_start|>", "<|im_end|>\n"
    last = f"{start}user\nb!{end}{start}assistant\n <x>"
    assert found == [
        f"{start}system\nS{end}{last}",
        f"{start}system\nS{end}{start}user\na{end}{start}assistant\nA{end}{last}",
        f"{start}system\nYou are helpful{end}{last}",
    ]
    (row,) = chat_rows([(asked[1], "B")], tokenizer, template)
    assert list(row.prompt) == prompt_ids([asked[1]], tokenizer, template)[0]
    assert list(row.completion) == [*tokenizer.encode("B"), tokenizer.token_to_id("<|im_end|>")]


def test_a_forced_prefix_stands_after_the_last_question(tokenizer: TextTokenizer) -> None:
    (found,) = prompt_ids([Trace("q", "", (("a", "b"),))], tokenizer, R1, " <think></think>")
    assert tokenizer.decode(found).endswith("User: q\n\nAssistant: <think></think>")
    (alone,) = prompt_ids([Trace("q", "")], tokenizer, R1, " <think></think>")
    assert alone == tokenizer.encode("User: q\n\nAssistant: <think></think>")
