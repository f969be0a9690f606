"""What a reward model reads: the same ids in training and in RL, EOS at the end, parts that are missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from r1_lightning.rollout.preference_rows import (
    PreferenceRow,
    collate_preferences,
    collate_share,
    encode_responses,
    preference_rows,
)
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.types.processes import Processes
from r1_lightning.types.text import LabelledResponse, Preference
from tests.support.prompts import PlainPrompts


class Words(PlainPrompts):
    """A tokenizer of words: the id of a word is its number in order of appearance, from 10."""

    eos_id, pad_id = 1, 0

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[self.ids.setdefault(word, 10 + len(self.ids)) for word in text.split()] for text in texts]


class WithBos(Words):
    """The same beginning every text with the id 2, as Llama's does."""

    begins_with_bos = True

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[2, *ids] for ids in super().encode_batch(texts)]


TEMPLATE = ChatTemplate("test", "Q: ", " A:")


def test_ids_by_hand() -> None:
    words: Any = Words()
    # Q: sum A: -> 10 11 12; fine -> 13.
    assert encode_responses([("sum", " fine"), ("sum", " sum fine")], words, TEMPLATE) == [
        [10, 11, 12, 13, 1],
        [10, 11, 12, 11, 13, 1],
    ]


def test_a_beginning_is_written_once() -> None:
    words: Any = WithBos()
    assert encode_responses([("sum", " fine")], words, TEMPLATE) == [[2, 10, 11, 12, 13, 1]]


def test_pairs_and_single_responses() -> None:
    words: Any = Words()
    items = [
        Preference("q", "<think>a</think> yes", "<think>b</think> no"),
        Preference("q", "<think>a</think> yes", "<think>never ends"),
        LabelledResponse("q", "yes", False),
    ]
    pair, missing, single = preference_rows(items, words, TEMPLATE, "summary")
    # Q: q A: -> 10 11 12, yes 13, no 14: the thinking is not read.
    assert pair == PreferenceRow(((10, 11, 12, 13, 1), (10, 11, 12, 14, 1)), (1.0, 0.0), prompt_tokens=3)
    assert missing is None
    assert single == PreferenceRow(((10, 11, 12, 13, 1),), (0.0,), prompt_tokens=3) and single.longest == 5
    whole = preference_rows(items, words, TEMPLATE, "whole")
    assert whole[1] is not None and len(whole[1].documents) == 2


def test_a_completion_is_what_the_template_has_a_policy_write() -> None:
    """The prompt opens the think block, so a completion begins behind the tag; a scored whole keeps it."""
    words: Any = Words()
    opened = ChatTemplate("opened", "Q: ", " A: <think>", "r1_opened")
    pair = Preference("q", "<think> a </think> yes", "no")
    rows = {part: preference_rows([pair], words, opened, part)[0] for part in ("whole", "completion")}
    # Q: q A: <think> -> 10 11 12 13; the response <think> a </think> yes -> 13 14 15 16, no -> 17.
    assert rows["whole"] == PreferenceRow(((10, 11, 12, 13, 13, 14, 15, 16, 1), (10, 11, 12, 13, 17, 1)), (1.0, 0.0), 4)
    assert rows["completion"] == PreferenceRow(
        ((10, 11, 12, 13, 14, 15, 16, 1), (10, 11, 12, 13, 17, 1)), (1.0, 0.0), 4
    )
    assert preference_rows([Preference("q", "yes", " ")], words, opened, "completion") == [None]


def test_collated_by_hand() -> None:
    rows = [PreferenceRow(((5, 6, 1), (5, 1)), (1.0, 0.0), 1), PreferenceRow(((7, 8, 9, 1), (7, 1)), (1.0, 0.0), 1)]
    batch = collate_preferences(rows, 6, 0)
    # Best fit: 3 + 2 in the first row of 6, 4 + 2 in the second.
    assert batch.tokens.token_ids.tolist() == [[5, 6, 1, 5, 1, 0], [7, 8, 9, 1, 7, 1]]
    assert batch.tokens.document_ids.tolist() == [[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 2, 2]]
    # Each prompt is one token.
    assert batch.sequence_ids.tolist() == [[-1, 0, 0, -1, 1, -1], [-1, 2, 2, 2, -1, 3]]
    assert batch.completion_mask.tolist() == [[number >= 0 for number in row] for row in batch.sequence_ids.tolist()]
    assert batch.ends.tolist() == [2, 4, 9, 11]
    assert batch.labels.tolist() == [1.0, 0.0, 1.0, 0.0] and batch.is_paired


def test_no_token_of_a_longer_prompt_belongs_to_a_response() -> None:
    batch = collate_preferences([PreferenceRow(((7, 8, 9, 1), (7, 8, 1)), (1.0, 0.0), prompt_tokens=2)], 7, 0)
    assert batch.tokens.token_ids.tolist() == [[7, 8, 9, 1, 7, 8, 1]]
    assert batch.sequence_ids.tolist() == [[-1, -1, 0, 0, -1, -1, 1]]


def test_columns_that_nobody_uses_are_cut_off() -> None:
    batch = collate_preferences([PreferenceRow(((5, 1),), (1.0,)), PreferenceRow(((6, 7, 1),), (0.0,))], 4, 0)
    assert batch.tokens.token_ids.tolist() == [[5, 1, 0], [6, 7, 1]]
    assert batch.ends.tolist() == [1, 5] and not batch.is_paired
    assert batch.sequence_ids.tolist() == [[-1, 0, -1], [-1, 1, 1]]  # without a prompt nothing predicts a first token
    with pytest.raises(ValueError, match="more than a row"):
        collate_preferences([PreferenceRow(((1,) * 9,), (1.0,))], 8, 0)


def test_shares_are_by_item_and_keep_pairs_together() -> None:
    pair, other = PreferenceRow(((5, 1), (5, 2, 1)), (1.0, 0.0)), PreferenceRow(((6, 1), (6, 7, 1)), (1.0, 0.0))
    shares = [collate_share([pair, other], Processes(rank, 3), 6, 0) for rank in range(3)]
    assert torch.equal(shares[0].tokens.token_ids, collate_preferences([pair], 6, 0).tokens.token_ids)
    assert shares[1].tokens.token_ids.tolist() == [[6, 1, 6, 7, 1]] and shares[1].labels.tolist() == [1, 0]
    empty = shares[2]  # one position of padding, and no sequence
    assert empty.tokens.token_ids.tolist() == [[0]] and not empty.tokens.is_token.any()
    assert empty.sequence_ids.tolist() == [[-1]] and len(empty.ends) == len(empty.labels) == 0 and empty.is_paired
