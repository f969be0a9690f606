"""What fine-tuning reads: ids and masks by hand, token by token in both forms, and no merge over the border of the completion."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from r1_lightning.rollout.chat_rows import ChatRow, ChatRows, chat_rows, collate_chat, encode_pairs
from r1_lightning.text.chat_template import R1, R1_ZERO, ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer, train_tokenizer
from r1_lightning.types.tensors import ChatBatch
from tests.rollout.test_preference_rows import TEMPLATE, WithBos, Words


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    texts = ["the sum is five", "Assistant: the sum", "sumsum thethe"] * 50
    return train_tokenizer(iter(texts), 300, (*R1_ZERO.phrases(), *R1.phrases()))


def test_ids_by_hand() -> None:
    words: Any = Words()
    # Q: sum A: -> 10 11 12; fine -> 13; EOS is 1.
    assert encode_pairs([("sum", " fine")], words, TEMPLATE) == [([10, 11, 12], [13, 1])]
    assert chat_rows([("sum", "\n fine "), ("sum", "sum")], words, TEMPLATE) == [
        ChatRow((10, 11, 12), (13, 1)),
        ChatRow((10, 11, 12), (11, 1)),
    ]


def test_a_beginning_is_written_once_and_is_no_part_of_the_completion() -> None:
    words: Any = WithBos()
    assert chat_rows([("sum", "fine")], words, TEMPLATE) == [ChatRow((2, 10, 11, 12), (13, 1))]


# Each token as text, and whether it is learned; EOS as it is called.
BY_HAND: list[tuple[ChatTemplate, str, list[tuple[str, bool]]]] = [
    (
        R1_ZERO,
        "<think>1+1=2</think><answer>2</answer>",
        [
            (R1_ZERO.phrases()[0], False),
            (" ", False),
            ("1", False),
            ("+", False),
            ("1", False),
            (". Assistant:", False),
            (" ", True),
            ("<think>", True),
            ("1", True),
            ("+", True),
            ("1", True),
            ("=", True),
            ("2", True),
            ("</think>", True),
            ("<answer>", True),
            ("2", True),
            ("</answer>", True),
            ("<｜end▁of▁sentence｜>", True),
        ],
    ),
    (
        R1,
        "<think>1+1=2</think>2",
        [
            ("User:", False),
            (" ", False),
            ("1", False),
            ("+", False),
            ("1", False),
            ("\n", False),
            ("\n", False),
            ("Assistant:", False),
            (" ", True),
            ("<think>", True),
            ("1", True),
            ("+", True),
            ("1", True),
            ("=", True),
            ("2", True),
            ("</think>", True),
            ("2", True),
            ("<｜end▁of▁sentence｜>", True),
        ],
    ),
]


@pytest.mark.parametrize(("template", "completion", "expected"), BY_HAND, ids=["r1_zero", "r1"])
def test_the_mask_token_by_token(
    tokenizer: TextTokenizer, template: ChatTemplate, completion: str, expected: list[tuple[str, bool]]
) -> None:
    batch = collate_chat([chat_rows([("1+1", completion)], tokenizer, template)], 0, 64, tokenizer.pad_id)
    ids, mask = batch.tokens.token_ids[0].tolist(), batch.completion_mask[0].tolist()
    found = [(tokenizer.decode([i], skip_special=False), learned) for i, learned in zip(ids, mask, strict=True)]
    assert found == expected


def test_no_merge_reaches_over_the_border(tokenizer: TextTokenizer) -> None:
    """A question that ends in half a word and a completion that begins with the other half, with nothing between them.

    Together the two halves are one token, as the tokenizer has learned; apart the border stays a border.
    """
    bare = ChatTemplate("bare", "", "")
    assert len(tokenizer.encode("sum")) == 1 and len(tokenizer.encode(" the")) == 1
    prompt, completion = encode_pairs([("su", "m")], tokenizer, bare)[0]
    assert tokenizer.decode(prompt) == "su" and tokenizer.decode(completion[:-1]) == "m"
    # The space before a completion belongs to its first word, and so to what is learned.
    row = chat_rows([("sum", "the sum")], tokenizer, R1)[0]
    assert tokenizer.decode([row.completion[0]]) == " the" and tokenizer.decode(list(row.prompt)) == R1.render("sum")
    # What sampling gives the model is what it was trained on.
    assert list(row.prompt) == tokenizer.encode(R1.render("sum"))


def test_the_spelling_of_eos_in_a_completion_ends_nothing(tokenizer: TextTokenizer) -> None:
    row = chat_rows([("q", "a<｜end▁of▁sentence｜>b")], tokenizer, R1)[0]
    assert row.completion.count(tokenizer.eos_id) == 1 and row.completion[-1] == tokenizer.eos_id


ROWS = [ChatRow((5, 6), (7, 1)), ChatRow((8,), (9, 10, 1)), ChatRow((11,), (1,)), ChatRow((12, 13, 14, 15), (16, 1))]


def test_many_documents_in_one_array() -> None:
    rows = ChatRows(iter(ROWS))
    assert [rows[number] for number in range(len(rows))] == ROWS
    assert rows.prompt_tokens == 2 + 1 + 1 + 4 and rows.tokens == len(rows.ids) == 4 + 4 + 2 + 6
    assert rows.ids.itemsize == 4 and len(ChatRows([])) == 0


def test_a_batch_by_hand() -> None:
    """Rows of 7: documents of 4, 4, 2 and 6 tokens; the third fits beside the first."""
    batch = collate_chat([ROWS], 0, 7, 0)
    assert batch.tokens.token_ids.tolist() == [[5, 6, 7, 1, 11, 1], [8, 9, 10, 1, 0, 0], [12, 13, 14, 15, 16, 1]]
    assert batch.tokens.position_ids.tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 0, 0], [0, 1, 2, 3, 4, 5]]
    assert batch.tokens.document_ids.tolist() == [[1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert batch.completion_mask.int().tolist() == [[0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert batch.step_lengths.tolist() == [[2, 4], [1, 4], [1, 2], [4, 6]]


def test_micro_batches_hold_the_documents_once_and_know_of_all() -> None:
    parts = [ROWS[:2], ROWS[2:]]
    batches: list[ChatBatch] = [collate_chat(parts, number, 7, 0) for number in range(2)]
    assert batches[0].step_lengths.tolist() == batches[1].step_lengths.tolist() == [[2, 4], [1, 4], [1, 2], [4, 6]]
    learned = [batch.tokens.token_ids[batch.completion_mask].tolist() for batch in batches]
    assert learned == [[7, 1, 9, 10, 1], [1, 16, 1]]
    assert sum(map(len, learned)) == int(batches[0].n_targets(1))  # every prompt has a token


def test_a_document_is_never_cut() -> None:
    with pytest.raises(ValueError, match="document 3 has 6 tokens, more than a row of 5"):
        collate_chat([ROWS], 0, 5, 0)
    assert torch.equal(collate_chat([ROWS], 0, 6, 0).step_lengths, collate_chat([ROWS], 0, 60, 0).step_lengths)
