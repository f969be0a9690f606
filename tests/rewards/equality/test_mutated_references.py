"""No mutated reference is accepted, and every reference is its own answer, by the reward's public face.

The pairs come from `mutated_references.py`, which knows nothing of the verifier; what it says of its own pairs is tested here, too.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.types.text import Completion, Problem
from tests.rewards.equality import reference_forms as forms
from tests.rewards.equality.mutated_references import FORMS, MADE, Pair, changed, differ, mutated_numbers, mutated_pairs

Asked = tuple[str, str, str]  # question, reference, answer


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    reward = MathReward(workers=1)
    yield reward
    reward.close()


def scored(reward: MathReward, asked: Sequence[Asked]) -> list[float]:
    """The score of each answer, in one call."""
    return [
        verdict.score
        for verdict in reward.judge_many(
            [
                (Problem(question, reference, "p"), Completion(f"<think>so</think><answer>{answer}</answer>", 9, True))
                for question, reference, answer in asked
            ]
        )
    ]


def accepted(reward: MathReward, pairs: Sequence[Pair]) -> list[Pair]:
    """The mutants that score."""
    scores = scored(reward, [(pair.question, pair.reference, pair.mutant) for pair in pairs])
    return [pair for pair, score in zip(pairs, scores, strict=True) if score != 0.0]


def refused(reward: MathReward, pairs: Sequence[Pair]) -> list[str]:
    """The references that do not score for themselves."""
    themselves = list(dict.fromkeys((pair.question, pair.reference, pair.reference) for pair in pairs))
    scores = scored(reward, themselves)
    return [asked[1] for asked, score in zip(themselves, scores, strict=True) if score != 1.0]


def test_a_mutant_of_every_form_is_refused_and_its_reference_accepted(reward: MathReward) -> None:
    pairs = mutated_pairs(seed=1, count=150)
    assert len({pair.kind for pair in pairs}) >= 60
    assert accepted(reward, pairs) == []
    assert refused(reward, pairs) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_no_mutant_of_five_thousand_is_accepted(reward: MathReward, seed: int) -> None:
    pairs = mutated_pairs(seed, count=5_000)
    assert accepted(reward, pairs) == []
    assert refused(reward, pairs) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test.jsonl", "train.jsonl"])
def test_no_mutant_of_gsm8k_is_accepted(reward: MathReward, file: str, shared_dir: Path) -> None:
    path = shared_dir / "data" / "gsm8k" / file
    if not path.is_file():
        pytest.skip(f"needs {file} of GSM8K in ../shared/data/gsm8k")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    asked = [(row["question"], row["answer"].rpartition("#### ")[2]) for row in rows]
    themselves = [(question, reference, reference) for question, reference in asked]
    assert len(asked) >= 1_000 and set(scored(reward, themselves)) == {1.0}
    pairs = [Pair("GSM8K", reference, mutant, q) for q, reference in asked for mutant in mutated_numbers(reference)]
    assert accepted(reward, pairs) == []


def test_pairs_are_many_different_and_the_same_every_time() -> None:
    pairs = mutated_pairs(seed=0, count=5_000)
    assert len(set(pairs)) == len(pairs) == 5_000
    assert pairs == mutated_pairs(seed=0, count=5_000) and pairs[:200] == mutated_pairs(seed=0, count=200)
    assert not set(pairs[:100]) & set(mutated_pairs(seed=1, count=100))
    kinds = Counter(pair.kind for pair in pairs)
    assert len(kinds) == len(FORMS) + len(MADE) and max(kinds.values()) <= 150
    assert all(pair.reference != pair.mutant for pair in pairs)


def test_only_meanings_that_certainly_differ_count() -> None:
    assert differ(Fraction(1, 2), Fraction(1, 3)) and not differ(Fraction(1, 2), Fraction(2, 4))
    assert differ((1, 2), (1, 2, 3)) and differ((1, 2), (2, 1)) and differ("length", "mass")
    assert not differ(1.0, 1.0 + 1e-9) and differ(1.0, 1.001)
    assert not differ((None, 2), (1, 2)) and differ((None, 2), (1, 3))  # a point without a value decides nothing


def test_forms_mean_what_they_write() -> None:
    assert forms.polynomial(1, 0, -3) == "x^{2}-3" and forms.polynomial(0, -1, 0) == "-x" and forms.polynomial(0) == "0"
    assert forms.multiplied(1, 2, 3) == (1, -6, 11, -6) and forms.factored(1, -2) == "(x-1)(x+2)"
    assert forms.least_power(64, Fraction(1, 2)) == (2, 3) == forms.least_power(8, 1)  # sqrt(64) = 8 = 2^3
    assert forms.surd(1, 2, 12, 4) == (Fraction(1, 4), 1, 3)  # (1 + 2 sqrt(12)) / 4 = 1/4 + sqrt(3)
    assert forms.surd(1, 2, 9, 7) == (1, 0, 1)  # (1 + 6) / 7
    assert forms.scaled(2, 3, 6) == forms.scaled(-4, -6, -12) != forms.scaled(2, 3, 7)
    assert forms.measured(30, 0) == forms.measured(3, 1) and forms.measured(1, 2, 2) == (
        "length",
        1_000_000,
    )  # mm, cm, m^2
    assert forms.in_base(7, 6, 6) == 48 and forms.in_base(8, 6, 6) == 54
    assert [forms.chinese(n) for n in (11, 20, 25)] == ["十一", "二十", "二十五"]
    assert forms.decimal(5, 2) == "0.05" and forms.decimal(1234, 1) == "123.4"
    for nothing in ((7, 7, 0), (7, 0, 1), (1, 0, 0)):  # a digit that the base lacks, a leading zero, no base
        with pytest.raises(ValueError, match="no such value"):
            forms.in_base(*nothing)


def test_a_change_is_small() -> None:
    found = {changed((12, 35), random.Random(str(n))) for n in range(400)}
    ones = {(13, 35), (11, 35), (-12, 35), (21, 35), (12, 36), (12, 34), (12, -35), (12, 53)}
    assert found == ones | {(35, 12), (12, 35)}  # changed over, once with itself


def test_mutated_numbers_are_other_answers() -> None:
    assert mutated_numbers("1,020") == [
        *("-1020", "201", "1019", "1021", "2020", "10200"),
        *("1020=1020", "1020 or 1021", r"1020\pm 1", "1020, 1021"),
    ]
    assert "0" not in mutated_numbers("0")
