"""Every case of the corpus, false positives and false negatives, and rules that hold for any answer.

`math_corpus.tsv` holds the cases, one a line: kind, answer, reference, expected (1 or 0), why.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from r1_lightning.rewards.equality.quick import quick_comparison
from r1_lightning.rewards.equality.structure import compare
from r1_lightning.rewards.verifiers.worker import judge

CORPUS = Path(__file__).with_name("math_corpus.tsv")


def cases() -> list[tuple[str, str, str, bool, str]]:
    """The lines of the corpus as (kind, answer, reference, expected, why)."""
    header, *lines = CORPUS.read_text(encoding="utf-8").split("\n")[:-1]
    assert header.split("\t") == ["kind", "answer", "reference", "expected", "why"]
    rows = [line.split("\t") for line in lines]
    return [
        (kind, answer, reference, {"1": True, "0": False}[expected], why)
        for kind, answer, reference, expected, why in rows
    ]


def test_the_corpus_is_broad() -> None:
    rows = cases()
    kinds = Counter(kind for kind, *_ in rows)
    assert len(rows) >= 700 and len(kinds) >= 38 and max(kinds.values()) <= 30
    assert sum(not expected for *_, expected, _ in rows) >= 150
    assert len({(answer, reference) for _, answer, reference, *_ in rows}) == len(rows)
    assert all(why for *_, why in rows)


@pytest.mark.parametrize("kind", sorted({row[0] for row in cases()}))
def test_the_corpus(kind: str) -> None:
    wrong = [
        (answer, reference, f"expected {expected}: {why}", found)
        for of_kind, answer, reference, expected, why in cases()
        if of_kind == kind and (found := judge(answer, reference))[0] != expected
    ]
    assert wrong == []


def test_what_is_decided_at_once_is_decided_alike() -> None:
    for _, answer, reference, expected, _ in cases():
        quick = quick_comparison(answer, reference)
        assert quick is None or quick.same == expected


def test_plain_answers_need_no_algebra() -> None:
    for answer, reference in (
        ("1,200", "1200"),
        ("50%", "0.5"),
        ("A", "B"),
        ("blue", "blue"),
        ("三分之二", "2/3"),
        ("3 cm", "3"),
    ):
        assert quick_comparison(answer, reference) is not None
    assert quick_comparison("x+1", "1+x") is None


@pytest.mark.parametrize("answer", [r"\frac{1}{2}x", r"[1,2)\cup[3,4]", "x<3", r"\{\sqrt{2},1\}", "y=2x+1", r"(1,\pi)"])
def test_an_answer_is_the_same_as_itself_and_only_spelling_may_differ(answer: str) -> None:
    assert compare(answer, answer).same
    assert compare(f"$ {answer} $.", rf"\boxed{{{answer}}}").same
    assert not compare(answer, "17").same
