"""Steps of data that are rows, by hand; the micro-batches are those that a run makes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace as Namespace
from typing import Any, cast

import pytest

from r1_lightning.run.cost import counted_rows
from r1_lightning.run.cost.counted_rows import (
    FULL_ROWS,
    Examples,
    FirstExamples,
    Preferences,
    StudentsText,
    TeachersText,
)
from tests.support.miniature import Miniature, rollout_config


def test_examples_are_packed_as_in_a_run() -> None:
    """The largest of the first four steps; every place has a loss; and all 20 examples were read, so the steps are known."""
    data = Miniature().examples(examples_per_batch=6, row_tokens=24)
    counted = Examples(data)
    batches = [data.train_dataloader().dataset[number] for number in range(4)]
    largest = max(batches, key=lambda batch: batch.tokens.token_ids.numel()).tokens.token_ids
    batch = counted.micro_batch(1)
    assert (batch.rows, batch.row_tokens, batch.targets, batch.mtp_depth) == (*largest.shape, largest.numel(), 1)
    load = counted.load(None)
    assert load.tokens == pytest.approx(sum(int(batch.tokens.is_token.sum()) for batch in batches) / 4)
    assert load.sampled_tokens == 0 and counted.wave() is None and counted.assumption == ""
    assert counted.given.is_whole and counted.steps() == 6


def test_examples_that_are_not_here_fill_rows() -> None:
    """6 of them in one part: six rows of 24, a token of which sees 12 on average."""
    counted = Examples(Miniature().examples(examples_per_batch=6, row_tokens=24), is_here=False)
    batch, load = counted.micro_batch(0), counted.load(None)
    assert (batch.rows, batch.row_tokens, batch.targets) == (6, 24, 144)
    assert (load.tokens, load.targets, load.context) == (144, 144, 12) and counted.assumption == FULL_ROWS


def test_of_a_large_file_the_first_rows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_rows, "ROWS_READ", 3)
    read = []

    def stream() -> Iterator[int]:
        for number in range(10):
            read.append(number)
            yield number

    first = FirstExamples(Namespace(stream=stream))
    assert list(cast(Any, first.stream())) == [0, 1, 2] and read == [0, 1, 2, 3] and not first.is_whole


def test_a_teachers_text_has_a_loss_on_its_targets() -> None:
    data = Miniature().traces(items_per_batch=6, micro_batches=2)
    counted, first = TeachersText(data), data.dataset_of(data.text()).batches(0)
    assert len(counted.batches) == 8 and counted.batches[0].tokens.token_ids.equal(first[0].tokens.token_ids)
    assert counted.micro_batch(0).targets == max(int(batch.target_mask.sum()) for batch in counted.batches)
    assert 0 < counted.load(None).targets < counted.load(None).tokens


def test_a_students_completions_are_at_their_limit() -> None:
    """6 completions of 10 tokens behind prompts of 5 (12+3=) at most: a row of 24 has one."""
    data = Miniature(rollout=rollout_config(max_rows=4)).on_policy(items_per_batch=6)
    counted = StudentsText(data)
    longest = max(map(len, counted.prompts))
    batch, load, wave = counted.micro_batch(0), counted.load(None), counted.wave()
    assert (batch.rows, batch.row_tokens, batch.targets) == (6, longest + 10, 60) and counted.batches == []
    assert (load.prompts, load.group_size, load.new_tokens, load.sampled_tokens) == (6, 1, 10, 60)
    assert wave is not None and (wave.rows, wave.prompts, wave.length) == (4, 4, longest + 10)


def test_preferences_count_the_tokens_of_responses() -> None:
    """The responses of the miniature's pairs are one or two digits, a space and EOS: 8 of them in a step."""
    counted = Preferences(Miniature().preferences(items_per_batch=4))
    sizes = [int((batch.sequence_ids >= 0).sum()) for batch in counted.batches]
    assert 8 * 3 <= min(sizes) <= max(sizes) <= 8 * 4
    assert counted.micro_batch(0).targets == max(sizes)
    assert counted.load(None).targets == sum(sizes) / len(sizes) < counted.load(None).tokens
