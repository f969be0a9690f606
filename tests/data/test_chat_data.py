"""Fine-tuning's data: passes in keyed orders, whole documents, steps or epochs, too long ones, and what is said of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.data import chat_data as chat_module
from r1_lightning.data.chat_data import ChatDataModule
from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import ChatBatch
from tests.support.miniature import ALPHABET, EOS, CharTokenizer


def write(path: Path, rows: list[dict[str, Any]]) -> ChatExamples:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return ChatExamples(str(path))


def sums(count: int) -> list[dict[str, Any]]:
    """10=, 11=, ...: prompts of three tokens, and completions of a space, one digit and EOS."""
    return [{"question": f"{10 + number}=", "completion": str(number % 10)} for number in range(count)]


def module(examples: ChatExamples, **settings: Any) -> ChatDataModule:
    tokenizer: Any = CharTokenizer()
    given = {"seed": 0, "max_steps": 4, "examples_per_batch": 5, "row_tokens": 24, **settings}
    made = ChatDataModule(examples, tokenizer, PLAIN, **given)
    made.setup("fit")
    return made


def questions(batch: ChatBatch) -> list[str]:
    """The prompt of each document."""
    tokens, found = batch.tokens, []
    for line in range(tokens.token_ids.shape[0]):
        for document in range(1, int(tokens.document_ids[line].max()) + 1):
            here = tokens.document_ids[line] == document
            ids = tokens.token_ids[line][here & ~batch.completion_mask[line]].tolist()
            found.append("".join(ALPHABET[token] for token in ids))
    return found


def test_every_pass_shows_each_example_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    examples = write(tmp_path / "x.jsonl", sums(10))
    dataset = module(examples).train_dataloader().dataset
    seen = [questions(dataset[step]) for step in range(4)]
    first, second = seen[0] + seen[1], seen[2] + seen[3]
    assert sorted(first) == sorted(second) == [f"{number}=" for number in range(10, 20)]
    assert first != second
    again = module(examples).train_dataloader().dataset
    assert questions(again[2]) == seen[2], "random access"
    other = module(examples, seed=1).train_dataloader().dataset
    assert [questions(other[step]) for step in range(2)] != seen[:2]


def test_a_batch_is_whole_documents_packed(tmp_path: Path) -> None:
    """Five documents of 3 + 3 tokens: four fill a row of 24, the fifth has one of its own."""
    batch = module(write(tmp_path / "x.jsonl", sums(10))).train_dataloader().dataset[0]
    assert batch.tokens.token_ids.shape == (2, 24) and int(batch.tokens.is_token.sum()) == 30
    assert batch.tokens.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5] * 4
    assert batch.completion_mask[0].int().tolist() == [0, 0, 0, 1, 1, 1] * 4
    assert batch.tokens.token_ids[0][5::6].tolist() == [EOS] * 4
    assert int(batch.n_targets(1)) == 15


def test_micro_batches_are_the_batch_in_parts(tmp_path: Path) -> None:
    examples = write(tmp_path / "x.jsonl", sums(10))
    whole = module(examples, examples_per_batch=4).train_dataloader().dataset
    parts = module(examples, examples_per_batch=4, micro_batches=2).train_dataloader()
    assert len(parts) == 8 and len(whole) == 4
    assert questions(parts.dataset[2]) + questions(parts.dataset[3]) == questions(whole[1])
    assert torch.equal(parts.dataset[2].step_lengths, whole[1].step_lengths)
    assert torch.equal(parts.dataset[3].step_lengths, whole[1].step_lengths)


def test_a_loader_goes_on_where_it_stood(tmp_path: Path) -> None:
    examples = write(tmp_path / "x.jsonl", sums(7))
    loader = module(examples).train_dataloader()
    batches = [questions(batch) for batch in loader]
    loader = module(examples).train_dataloader()
    iterator = iter(loader)
    next(iterator)
    later = module(examples).train_dataloader()
    later.load_state_dict(loader.state_dict())
    assert [questions(batch) for batch in later] == batches[1:]


@pytest.mark.parametrize(("epochs", "count", "steps"), [(1, 10, 2), (2, 10, 4), (2, 7, 3), (3, 1, 1)])
def test_epochs_are_as_many_steps_as_they_need(tmp_path: Path, epochs: int, count: int, steps: int) -> None:
    """In batches of 5: 10 examples twice are 4 steps; 7 twice are 14 examples, filled up to 15."""
    made = module(write(tmp_path / "x.jsonl", sums(count)), epochs=epochs, max_steps=None)
    assert made.steps() == len(made.train_dataloader()) == steps
    assert module(write(tmp_path / "x.jsonl", sums(count)), epochs=epochs, max_steps=9).steps() == 9


def test_a_long_example_is_refused_by_its_place_or_left_out_with_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sums(3)
    rows[1]["completion"] = "1" * 21  # 3 + 1 + 21 + 1 = 26 tokens
    examples = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(InvalidInput) as refused:
        module(examples)
    assert str(refused.value) == (
        f"{tmp_path / 'x.jsonl'}, line 2: 26 tokens with the prompt are not allowed: a row has data.row_tokens=24 "
        "(data.too_long=drop leaves such examples out)"
    )
    capsys.readouterr()
    made = module(examples, too_long="drop")
    assert made.rows is not None and len(made.rows) == 2
    assert capsys.readouterr().out == (
        "examples: 2, 0 of them in the form r1_zero; prompts of 3.0 tokens on average, completions of 3.0; "
        "left out: 1 (longer than row_tokens = 24); read as question and completion (3)\n"
    )
    with pytest.raises(InvalidInput, match=r"data\.row_tokens=5 is not allowed: all 3 examples are longer"):
        module(examples, too_long="drop", row_tokens=5)


def test_what_is_said_of_domains_and_system_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {**row, "domain": name} for row, name in zip(sums(3), ("math", "code", "math"), strict=True)
    ]
    messages = [{"role": role, "content": text} for role, text in (("system", "1"), ("user", "1="), ("assistant", "1"))]
    write(tmp_path / "x.jsonl", [*rows, {"messages": messages}])
    module(ChatExamples(str(tmp_path / "x.jsonl"), system="leave_out"))
    said = capsys.readouterr().out
    assert "; domains code 1, math 2; 1 with a system message; left out: none; read as question" in said


def test_the_folder_of_an_input_comes_in_place_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", sums(10))
    made = module(ChatExamples(), data_folder=tmp_path)
    assert made.rows is not None and len(made.rows) == 10
    with pytest.raises(InvalidInput, match=r"data\.examples\.file=None is not allowed"):
        module(ChatExamples())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"examples_per_batch": 0}, "data.examples_per_batch=0"),
        ({"micro_batches": 2}, "data.micro_batches=2 is not allowed: it must divide examples_per_batch = 5"),
        ({"row_tokens": 1}, "data.row_tokens=1"),
        ({"too_long": "cut"}, "data.too_long='cut' is not allowed: it must be one of refuse, drop"),
        ({"epochs": 0}, "data.epochs=0"),
        ({"max_steps": None}, "data.epochs=None is not allowed: it is needed without stage.max_steps"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        module(ChatExamples(), **settings)
    assert message in str(refused.value)


def test_a_large_file_is_tokenised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The second module reads neither a row nor a text, says the same and serves the same batches."""
    monkeypatch.setattr(chat_module, "LEAST_CACHED_BYTES", 1)
    path = tmp_path / "x.jsonl"
    write(path, [*sums(7), {"question": "1" * 30, "completion": "2"}])
    settings = {"too_long": "drop", "token_cache": tmp_path / "cache"}
    fresh = module(ChatExamples(str(path)), too_long="drop")
    said = capsys.readouterr().out
    first = module(ChatExamples(str(path)), **settings)
    assert capsys.readouterr().out == said
    with monkeypatch.context() as patched:
        patched.setattr(ChatExamples, "stream", lambda self: iter(()))
        again = module(ChatExamples(str(path)), **settings)
    assert capsys.readouterr().out == said and "left out: 1 (longer than row_tokens = 24)" in said
    for made in (first, again):
        found, expected = (part.train_dataloader().dataset for part in (made, fresh))
        assert len(found) == len(expected)
        assert all(questions(found[step]) == questions(expected[step]) for step in range(4))


def test_other_rows_settings_or_sizes_are_tokenised_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "x.jsonl", tmp_path / "cache"
    write(path, sums(7))
    module(ChatExamples(str(path)), token_cache=cache)
    assert not cache.exists()  # a small file
    monkeypatch.setattr(chat_module, "LEAST_CACHED_BYTES", 1)
    for number, examples in enumerate((ChatExamples(str(path)), ChatExamples(str(path), system="leave_out")), start=1):
        module(examples, token_cache=cache)
        module(examples, token_cache=cache, row_tokens=23)  # the rows are the same, whatever the limit
        assert len(list(cache.iterdir())) == number
    write(path, sums(8))
    assert len(module(ChatExamples(str(path)), token_cache=cache).rows or ()) == 8 and len(list(cache.iterdir())) == 3


def test_a_long_example_of_the_cache_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "LEAST_CACHED_BYTES", 1)
    path = tmp_path / "x.jsonl"
    write(path, [*sums(2), {"question": "1" * 30, "completion": "2"}, *sums(2)])
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"x\.jsonl, line 3: 33 tokens with the prompt are not allowed"):
            module(ChatExamples(str(path)), token_cache=tmp_path / "cache")


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_validation_rows_are_not_trained_on(tmp_path: Path, count: int) -> None:
    examples = write(tmp_path / "x.jsonl", sums(10))
    made = module(examples, max_steps=None, epochs=2, validation_rows=count)
    held_out = [question for batch in made.validation_batches() for question in questions(batch)]
    dataset = made.train_dataloader().dataset
    trained = [question for step in range(made.steps()) for question in questions(dataset[step])]
    assert len(held_out) == count and not set(held_out) & set(trained)
    assert sorted({*held_out, *trained}) == [f"{number}=" for number in range(10, 20)]
    assert made.steps() == math.ceil(2 * (10 - count) / 5)
    others = module(examples, validation_rows=count, seed=1).validation_batches()
    if 1 < count < 9:
        assert [question for batch in others for question in questions(batch)] != held_out


def test_without_validation_rows_nothing_changes(tmp_path: Path) -> None:
    examples = write(tmp_path / "x.jsonl", sums(10))
    plain, zero = (module(examples, **more) for more in ({}, {"validation_rows": 0}))
    for step in range(4):
        assert questions(plain.train_dataloader().dataset[step]) == questions(zero.train_dataloader().dataset[step])
    assert zero.validation_batches() == []
    with pytest.raises(InvalidInput, match=r"data\.validation_rows=10 is not allowed: fewer than the 10"):
        module(examples, validation_rows=10).train_dataloader()
