"""Preference data: passes in keyed orders, parts of a batch, filters that count, and the model's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from r1_lightning.data.preference_data import (
    JudgedPreferenceDataModule,
    PreferenceDataModule,
    SampledPreferenceDataModule,
)
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import PreferenceBatch
from r1_lightning.types.text import LabelledResponse, Preference, PreferenceItem
from tests.rollout.test_judged_preferences import counting
from tests.rollout.test_pair_judge import judge
from tests.support.miniature import EOS, CharTokenizer, HashReward, Miniature, Sums


@dataclass(frozen=True)
class Given:
    """The items it was given; `asked` is how many were wanted."""

    items: tuple[PreferenceItem, ...]
    content_version: str = "given-1"

    def training_items(self, seed: int, wanted: int) -> Sequence[PreferenceItem]:
        return self.items

    def held_out_items(self, count: int) -> Sequence[PreferenceItem]:
        return self.items[:count]


def pair(number: int, chosen: str = "1", rejected: str = "0", gap: float | None = None) -> Preference:
    return Preference(f"{number}=", chosen, rejected, gap)


PAIRS = tuple(pair(number) for number in range(10, 20))


def module(items: Sequence[PreferenceItem] = PAIRS, **settings: Any) -> PreferenceDataModule:
    tokenizer: Any = CharTokenizer()
    given = {"seed": 0, "max_steps": 4, "part": "whole", "items_per_batch": 5, "row_tokens": 24, **settings}
    made = PreferenceDataModule(preferences=Given(tuple(items)), tokenizer=tokenizer, template=PLAIN, **given)
    made.setup("fit")
    return made


def questions(batch: PreferenceBatch) -> list[str]:
    """The question of each pair, read off the documents of the chosen responses."""
    ids, documents = batch.tokens.token_ids.flatten(), batch.tokens.document_ids.flatten()
    found = []
    for end in batch.ends.tolist()[::2]:
        start = end
        while start > 0 and documents[start - 1] == documents[end]:
            start -= 1
        assert ids[end] == EOS
        found.append(CharTokenizer().decode_batch([ids[start:end].tolist()])[0].partition("=")[0])
    return found


def test_every_pass_shows_each_pair_once_in_an_order_of_its_own() -> None:
    dataset = module().train_dataloader().dataset
    seen = [name for step in range(4) for name in questions(dataset[step])]
    assert sorted(seen[:10]) == sorted(seen[10:]) == [str(number) for number in range(10, 20)]
    assert seen[:10] != seen[10:]
    again = module().train_dataloader().dataset
    assert questions(again[2]) == seen[10:15], "random access"
    other = module(seed=1).train_dataloader().dataset
    assert [name for step in range(2) for name in questions(other[step])] != seen[:10]


def test_a_loader_goes_on_where_it_stood() -> None:
    loader = module().train_dataloader()
    steps = iter(loader)
    first, second = next(steps), next(steps)
    resumed = module().train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert len(resumed) == 4
    third = next(iter(resumed))
    assert questions(third) == questions(loader.dataset[2]) != questions(first)
    assert torch.equal(second.ends, loader.dataset[1].ends)


def test_micro_batches_are_the_batch_in_parts() -> None:
    whole = module(items_per_batch=4, max_steps=2).train_dataloader().dataset
    parts = module(items_per_batch=4, max_steps=2, micro_batches=2).train_dataloader()
    assert len(parts) == 4
    assert questions(parts.dataset[2]) + questions(parts.dataset[3]) == questions(whole[1])


def test_labels_and_single_responses() -> None:
    batch = module().train_dataloader().dataset[0]
    assert batch.is_paired and batch.labels.tolist() == [1.0, 0.0] * 5
    single = module([LabelledResponse("1=", "1", True), LabelledResponse("2=", "1", False)], items_per_batch=2)
    batch = single.train_dataloader().dataset[0]
    assert not batch.is_paired and sorted(batch.labels.tolist()) == [0.0, 1.0]


def test_what_is_left_out_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        pair(1),  # 1= 1 and EOS: "1=", " 1" and EOS are 5 tokens
        pair(2, "1" * 30),
        pair(3, " ", "0"),
        pair(4, gap=1.0),
        pair(5, gap=1.5),
        pair(6, "1111111", "0"),
    ]
    made = module(items, max_length_ratio=2.0)
    said = capsys.readouterr().out
    assert made.dataset is not None and len(made.dataset.rows) == 2
    assert said == (
        "preferences: 2 pairs, good ones 5.0 tokens long, others 5.0; left out: 1 (a response without text), "
        "1 (longer than row_tokens = 24), 1 (one response is much longer than the other), "
        "1 (the judge's scores differ by no more than 1); the first that is too long: '2=', 34 tokens\n"
    )
    assert len(module(items, max_length_ratio=None, min_score_gap=0.0).dataset.rows) == 4  # type: ignore[union-attr]


def test_nothing_left_is_one_line() -> None:
    with pytest.raises(InvalidInput, match=r"no preference can be used; left out: 1 \(longer than row_tokens = 24\)"):
        module([pair(1, "1" * 40)])


def test_held_out_rows_are_filtered_like_the_others() -> None:
    made = module([pair(1), pair(2, "1" * 30), pair(3)])
    assert len(made.held_out_rows(3)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"part": "thinking"}, "data.part='thinking'"),
        ({"items_per_batch": 0}, "data.items_per_batch=0"),
        ({"micro_batches": 2}, "data.micro_batches=2 is not allowed: it must divide items_per_batch = 5"),
        ({"row_tokens": 1}, "data.row_tokens=1"),
        ({"min_score_gap": -1.0}, "data.min_score_gap=-1.0"),
        ({"max_length_ratio": 0.5}, "data.max_length_ratio=0.5"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        module(**settings)


def test_a_model_s_own_samples() -> None:
    def sampled(**settings: Any) -> SampledPreferenceDataModule:
        tokenizer: Any = CharTokenizer()
        reward = WeightedSum([HashReward()])
        given = {"seed": 0, "max_steps": 3, "part": "whole", "items_per_batch": 2, "row_tokens": 24, **settings}
        parts = {"source": Sums(), "generate": Miniature().sampler(), "reward": reward}
        return SampledPreferenceDataModule(tokenizer=tokenizer, template=PLAIN, **parts, **given)

    made, again = sampled(), sampled()
    made.setup("fit")
    again.setup("fit")
    assert made.dataset is not None and again.dataset is not None
    assert 0 < len(made.dataset.rows) <= 6 and made.dataset.rows == again.dataset.rows
    assert 0 < len(made.held_out_rows(5)) <= 5
    with pytest.raises(InvalidInput, match=r"data.samples=1"):
        sampled(samples=1)


def test_pairs_that_a_model_has_judged(capsys: pytest.CaptureFixture[str]) -> None:
    def judged(**settings: Any) -> JudgedPreferenceDataModule:
        tokenizer: Any = CharTokenizer()
        given = {"seed": 0, "max_steps": 3, "part": "whole", "items_per_batch": 2, "row_tokens": 24, **settings}
        parts = {"source": Sums(), "generate": Miniature().sampler(), "judge": judge(counting)[0].model}
        return JudgedPreferenceDataModule(tokenizer=tokenizer, template=PLAIN, **parts, **given)

    made, again = judged(), judged()
    assert 0 < len(made.held_out_rows(30)) < 30
    made.setup("fit")
    again.setup("fit")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("judge: ") and said[1].startswith("judge: 6 pairs; left out: ")
    assert "(the judge's scores differ by no more than 1)" in said[1] and "; 0 of " in said[1]
    assert said[2].startswith("preferences: 6 pairs")
    assert made.dataset is not None and again.dataset is not None and made.dataset.rows == again.dataset.rows
    for settings in ({"samples": 1}, {"judge_calls": 5}, {"judge_new_tokens": 0}, {"min_score_gap": -1.0}):
        with pytest.raises(InvalidInput, match=f"data.{next(iter(settings))}="):
            judged(**settings)
