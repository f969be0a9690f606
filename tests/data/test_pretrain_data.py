"""Packed text: a function of (seed, document number), every document once, in batches of whole rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from r1_lightning.data import pretrain_data
from r1_lightning.data.pretrain_data import PackedTextDataset, PretrainDataModule
from r1_lightning.types.errors import InvalidInput
from tests.support.miniature import ALPHABET, EOS, PAD, CharTokenizer, Miniature, Sums


def dataset(seed: int = 0, row_tokens: int = 24, rows: int = 4, steps: int = 5, **more: Any) -> PackedTextDataset:
    tokenizer: Any = CharTokenizer()
    return PackedTextDataset(Sums(), tokenizer, seed, row_tokens, rows, steps, **more)


def documents_of(data: PackedTextDataset) -> list[list[int]]:
    """Every document that is trained on, in the order of rows and places."""
    found = []
    for step in range(len(data)):
        batch = data[step]
        for ids, owners in zip(batch.token_ids, batch.document_ids, strict=True):
            found += [ids[owners == owner].tolist() for owner in range(1, int(owners.max()) + 1)]
    return found


def test_the_first_documents_by_hand() -> None:
    # Sums, seed 0: number 0 is 10+0=10, number 1 is (10 + 7) + (11 mod 10) = 17+1=18 and " ?"; rows of 24 hold
    # 8 and 10 tokens with their EOS, the next one (24+2=26 and " ? ?", 12) does not fit and opens another row.
    assert list(Sums().documents(0, 0, 3)) == ["10+0=10", "17+1=18 ?", "24+2=26 ? ?"]
    first = dataset(rows=1)[0]
    expected = [*(ALPHABET.index(c) for c in "10+0=10"), EOS, *(ALPHABET.index(c) for c in "17+1=18 ?"), EOS]
    assert first.token_ids[0].tolist()[:18] == expected
    assert first.document_ids[0].tolist()[:18] == [1] * 8 + [2] * 10
    assert first.position_ids[0].tolist()[:18] == [*range(8), *range(10)]


def test_every_document_ends_with_eos_and_comes_once() -> None:
    found = documents_of(dataset())
    assert all(document[-1] == EOS and EOS not in document[:-1] and PAD not in document for document in found)
    texts = Counter("".join(ALPHABET[token] for token in document[:-1]) for document in found)
    made = Counter(Sums().documents(0, 0, 2048))
    assert texts.total() > 20 and texts <= made


def test_seed_decides_everything_and_steps_differ() -> None:
    same, again, other = dataset(0), dataset(0), dataset(1)
    for step in range(5):
        assert torch.equal(same[step].token_ids, again[step].token_ids)
    assert not torch.equal(same[0].token_ids, other[0].token_ids)
    assert not torch.equal(same[0].token_ids, same[1].token_ids)


def test_a_longer_run_begins_with_the_same_batches() -> None:
    short, long = dataset(steps=3), dataset(steps=9)
    for step in range(3):
        assert torch.equal(short[step].token_ids, long[step].token_ids)


def test_shapes_and_number_of_steps() -> None:
    data = dataset(row_tokens=24, rows=3, steps=7)
    assert len(data) == 7
    assert all(data[step].token_ids.shape == (3, 24) for step in range(7))
    assert data[6].is_token.float().mean() > 0.8  # the last batch is as full as the others


def test_a_document_longer_than_a_row_is_cut_not_lost() -> None:
    # 10+0=10 and EOS are 8 tokens: a row of 5 and a row of 3, each a document of its own.
    data = dataset(row_tokens=5, rows=1, steps=2)
    assert data[0].token_ids[0].tolist() == [ALPHABET.index(c) for c in "10+0="]
    assert data[1].token_ids[0].tolist()[:3] == [ALPHABET.index("1"), ALPHABET.index("0"), EOS]
    assert data[1].position_ids[0].tolist()[:3] == [0, 1, 2]


def test_documents_are_fetched_in_calls_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dataset()
    monkeypatch.setattr(pretrain_data, "DOCUMENTS_PER_CALL", 3)
    assert torch.equal(whole[4].token_ids, dataset()[4].token_ids)


def test_first_document_moves_the_start() -> None:
    texts = [
        "".join(ALPHABET[token] for token in document[:-1]) for document in documents_of(dataset(first_document=5))
    ]
    assert set(texts) <= set(Sums().documents(0, 5, 2048)) and "10+0=10" not in texts[:1]
    assert texts[0] == next(iter(Sums().documents(0, 5, 1)))


def test_a_source_without_documents_is_refused() -> None:
    class Silent(Sums):
        def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
            return iter(())

    tokenizer: Any = CharTokenizer()
    with pytest.raises(InvalidInput, match="no pre-training documents"):
        PackedTextDataset(Silent(), tokenizer, 0, 24, 4, 5)


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"row_tokens": 1}, "data.row_tokens=1"), ({"rows_per_batch": 0}, "data.rows_per_batch=0")],
)
def test_bad_settings_are_named(settings: dict[str, Any], field: str) -> None:
    tokenizer: Any = CharTokenizer()
    with pytest.raises(InvalidInput, match=field):
        PretrainDataModule(Sums(), tokenizer, 0, 5, **settings)


def test_the_module_serves_its_data_set_from_the_first_step() -> None:
    loader = Miniature().text(24, 4).train_dataloader()
    assert len(loader) == 6 and loader.cursor == 0
    assert torch.equal(next(iter(loader)).token_ids, dataset(steps=6)[0].token_ids)


def test_rows_that_were_trained_on_are_those_of_the_steps() -> None:
    rows, data = Miniature().text(24, 4).trained_rows(), dataset(steps=6)
    assert rows.token_ids.shape == (24, 24)
    assert torch.equal(rows.batch(slice(20, 24)).token_ids, data[5].token_ids)


def test_held_out_text_is_of_documents_that_training_never_reaches() -> None:
    rows = Miniature().text(24, 4).held_out_rows_of_text(2)
    assert rows is not None and rows.token_ids.shape == (2, 24)
    first = "".join(ALPHABET[token] for token in rows.token_ids[0][rows.document_ids[0] == 1][:-1])
    assert first == next(iter(Sums().documents(0, 2**40, 1)))


def test_a_source_without_so_high_a_number_has_no_held_out_text() -> None:
    class Few(Sums):
        def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
            return iter(["1+1=2"][start : start + count])

    tokenizer: Any = CharTokenizer()
    assert PretrainDataModule(Few(), tokenizer, 0, 5).held_out_rows_of_text(2) is None
