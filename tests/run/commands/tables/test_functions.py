"""Each function on a handful of samples that are written down and counted by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts import data_set, store
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.run.commands.tables.declared import read_table, tables
from r1_lightning.run.commands.tables.functions import (
    FUNCTIONS,
    UNTRAINED,
    by_level,
    distinct_paths,
    reflective_words,
    rl_data,
    sft_data,
)
from r1_lightning.text.tokenizer import train_tokenizer
from r1_lightning.types.text import Completion, Problem, RewardFunction


@dataclass
class Written:
    """A model whose answers are written down."""

    answered: tuple[list[Problem], list[list[Completion]]] = ([], [])
    words: tuple[str, ...] = ()
    folder: Path = field(default_factory=Path)
    judge: RewardFunction = field(default_factory=AccuracyReward)
    ready: Any = None


def said(thinking: str, answer: str, n_tokens: int = 5) -> Completion:
    return Completion(f" <think>{thinking}</think> <answer>{answer}</answer>", n_tokens, True)


SUM, PRODUCT = Problem("2+3+4", "9", "p0", level=2), Problem("2*3*4*5", "120", "p1", level=3)


def test_distinct_paths_counts_right_ones_with_other_equations() -> None:
    rows = [
        [said("2+3=5, 5+4=9", "9"), said("2+3=5; 5+4=9.", "9"), said("3+4=7, 2+7=9", "9"), said("2+4=6", "8")],
        [
            said("2*3=6", "7"),
            said("2*3=6, 6*4=24, 24*5=120", "120"),
            said("4*5=20", "0"),
            said("4*5=20, 20*6=120", "120"),
        ],
    ]
    found = distinct_paths(Written(([SUM, PRODUCT], rows)))
    assert list(found) == ["paths_at_1", "paths_at_3"]  # of 1, 3, 6, ... those that four samples have
    # Of the first sample: 1 and 0 paths. Of the first three: 2 (the second repeats the first) and 1.
    assert [found[name].value for name in found] == [0.5, 1.5]


def test_reflective_words_are_counted_as_words_in_both_languages() -> None:
    rows = [
        [said("2+3=6. Wait, 2+3=5. Check: 5+4=9", "9"), said("waiting for 9", "9")],
        [said("等等，2*3=6", "120"), said("2*3=6", "7")],
    ]
    found = {name: measure.value for name, measure in reflective_words(Written(([SUM, PRODUCT], rows))).items()}
    assert found == {
        "reflective_words": 0.75,  # 2, 0, 1, 0
        "reflective_share": 0.5,
        "pass_at_1": 0.75,
        "pass_at_1_reflective": 1.0,  # both of them
        "pass_at_1_plain": 0.5,
    }


def test_reflective_words_of_none_has_no_accuracy_of_those() -> None:
    assert "pass_at_1_reflective" not in reflective_words(Written(([SUM], [[said("5+4=9", "9")]])))


def test_lengths_and_accuracy_by_level() -> None:
    rows = [[said("5+4=9", "9", 10), said("", "8", 20)], [said("", "120", 40), said("", "120", 50)]]
    found = {name: measure.value for name, measure in by_level(Written(([SUM, PRODUCT], rows))).items()}
    assert found == {
        "tokens_level_2": 15.0,
        "pass_at_1_level_2": 0.5,
        "tokens_level_3": 45.0,
        "pass_at_1_level_3": 1.0,
    }


def test_the_card_of_rl_data_counts_its_questions() -> None:
    found = rl_data(Written(words=("stage=grpo", "task=arithmetic", "seed=1")))
    assert list(found) == ["share_all", "characters_all"] and found["share_all"].value == 1.0
    assert 5 < found["characters_all"].value < 60


def test_the_card_of_fine_tuning_counts_the_rows_of_every_part(tmp_path: Path) -> None:
    base = store.create(tmp_path, "grpo", "tiny", "sums", "b" * 64)
    store.save_weights(torch.nn.Linear(1, 1), base.weights_path)
    train_tokenizer(["a"], 300).save(base.tokenizer_folder)  # nothing to merge: every byte is a token
    samples = store.create(tmp_path, "sample", "tiny", "sums", "d" * 64)
    rows: list[dict[str, Any]] = [
        {"completion": "1234", "source": "reasoning", "domain": "reasoning", "metadata": {"task": "arithmetic"}},
        {"completion": "12", "source": "reasoning", "domain": "reasoning", "metadata": {"task": "arithmetic"}},
        {"completion": "123456789", "source": "reasoning", "domain": "reasoning", "metadata": {"task": "programs"}},
        {"completion": "é", "source": "general", "domain": "general"},  # two bytes; in the second part
        {"completion": "abc", "source": "files", "metadata": None},
    ]
    data_set.write_parts(samples.folder, rows, rows_per_part=3)
    base = store.complete(base, "c", {}, {}, {})
    folder = store.complete(samples, "c", {}, {"base": base}, {}).folder
    assert {name: measure.value for name, measure in sft_data(Written(folder=folder)).items()} == {
        "rows": 5,
        "tokens": 4.0,  # (4 + 2 + 9 + 2 + 3) / 5
        "share_arithmetic": 0.4,
        "tokens_arithmetic": 3.0,
        "share_files": 0.2,
        "tokens_files": 3.0,
        "share_general": 0.2,
        "tokens_general": 2.0,
        "share_programs": 0.2,
        "tokens_programs": 9.0,
    }


def test_tables_name_functions_that_there_are() -> None:
    named = {read_table(path).function for path in tables().values()} - {None}
    assert named == set(FUNCTIONS) and set(UNTRAINED) < set(FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_a_function_has_at_most_40_lines(function: object) -> None:
    import inspect

    assert len(inspect.getsource(function).splitlines()) <= 40  # type: ignore[arg-type]
