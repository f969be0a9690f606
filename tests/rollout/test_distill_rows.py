"""What a student learns of a text: documents but for their first token, completions with EOS, nothing of a question."""

from __future__ import annotations

from typing import Any

import pytest

from r1_lightning.rollout.chat_rows import chat_rows
from r1_lightning.rollout.distill_rows import DistillRow, collate_distill, document_rows, trace_rows
from r1_lightning.text.chat_template import PLAIN, ChatTemplate
from r1_lightning.types.text import Trace
from tests.support.miniature import EOS, PAD, CharTokenizer

TOKENIZER: Any = CharTokenizer()


class Begun(CharTokenizer):
    """Begins every text with a token of its own, as Llama's does."""

    begins_with_bos = True

    def encode(self, text: str) -> list[int]:
        return [EOS + 2, *super().encode(text)]


def test_documents_end_with_eos_and_long_ones_are_cut() -> None:
    # "1+1=2" and EOS are 6 tokens: 4 and 2 in rows of 4. Each piece begins anew: 3 and 1 of its tokens have one before them.
    rows = document_rows(["1+1=2", "7"], TOKENIZER, 4)
    assert [row.ids for row in rows] == [(1, 10, 1, 12), (2, EOS), (7, EOS)]
    assert [row.n_targets for row in rows] == [3, 1, 1]


def test_traces_are_learned_from_the_completion_on() -> None:
    prompt = TOKENIZER.encode(PLAIN.render("1+1"))
    (row,) = trace_rows([Trace("1+1", "2 2")], TOKENIZER, PLAIN)
    assert row == DistillRow((*prompt, 14, 2, 14, 2, EOS), len(prompt)) and row.n_targets == 5


@pytest.mark.parametrize("template", [PLAIN, ChatTemplate("sum", "2+", "=")])
@pytest.mark.parametrize("completion", ["2 2", " 2 2", "\n 2 2 \n"])
def test_a_trace_is_read_as_an_example_for_fine_tuning_is(completion: str, template: ChatTemplate) -> None:
    """Whatever stands around it in the file, it follows the prompt as what is sampled does: after one space."""
    (row,) = trace_rows([Trace("1+1", completion)], TOKENIZER, template)
    (example,) = chat_rows([("1+1", completion)], TOKENIZER, template)
    assert row == DistillRow((*example.prompt, *example.completion), len(example.prompt))
    assert row.ids[row.first_target :] == (14, 2, 14, 2, EOS)


def test_a_token_that_begins_texts_comes_once() -> None:
    tokenizer: Any = Begun()
    (row,) = trace_rows([Trace("1", "2")], tokenizer, PLAIN)
    assert row.ids.count(EOS + 2) == 1 and row.ids[0] == EOS + 2 and row.ids[row.first_target :] == (14, 2, EOS)


def test_packed_by_hand() -> None:
    # Rows of 6: the first holds 4 tokens of which the last 2 are learned, then 2 of which the second is; the other row ends at 3.
    rows = [DistillRow((1, 2, 3, EOS), 2), DistillRow((4, 5, EOS), 1), DistillRow((6, EOS), 1)]
    batch = collate_distill(rows, 6, PAD, n_tokens=5)
    assert batch.tokens.token_ids.tolist() == [[1, 2, 3, EOS, 6, EOS], [4, 5, EOS, PAD, PAD, PAD]]
    assert batch.target_mask.int().tolist() == [[0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0]]
    assert batch.tokens.document_ids.tolist() == [[1, 1, 1, 1, 2, 2], [1, 1, 1, 0, 0, 0]]
    assert batch.n_tokens == 5 and not batch.is_on_policy and batch.top_ids is None
    assert collate_distill(rows[1:2], 6, PAD, 2, is_on_policy=True).tokens.token_ids.tolist() == [[4, 5, EOS]]


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="4 tokens, more than a row of 3"):
        collate_distill([DistillRow((1, 2, 3, EOS), 2)], 3, PAD, 2)
