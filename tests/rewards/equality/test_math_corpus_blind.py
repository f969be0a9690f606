"""Cases that were written from the mathematics alone, not from the verifier's code.

`math_corpus_blind.tsv` holds them, one a line: kind, answer, reference, expected (1 or 0), why, question. The question is empty
but where it decides: an answer that copies the question's own expression is not worked out and scores 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.types.text import Completion, Problem

BLIND = Path(__file__).with_name("math_corpus_blind.tsv")
SEEN = Path(__file__).with_name("math_corpus.tsv")
COLUMNS = ["kind", "answer", "reference", "expected", "why", "question"]


def rows(path: Path, columns: list[str]) -> list[list[str]]:
    """The lines of a corpus, each split into its columns."""
    header, *lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert header.split("\t") == columns
    found = [line.split("\t") for line in lines]
    assert all(len(row) == len(columns) and row[3] in ("0", "1") and row[4] for row in found)
    return found


@pytest.fixture(scope="module")
def reward() -> Iterator[MathReward]:
    reward = MathReward(workers=1)
    yield reward
    reward.close()


def test_the_corpus_is_broad() -> None:
    blind, seen = rows(BLIND, COLUMNS), rows(SEEN, COLUMNS[:-1])
    assert len(blind) >= 800 and sum(row[3] == "0" for row in blind) >= len(blind) / 2
    kinds = Counter(row[0] for row in blind)
    assert max(kinds.values()) <= 30 and not kinds.keys() & {row[0] for row in seen}
    both = [(row[1], row[2], row[5] if len(row) > 5 else "") for row in blind + seen]
    assert len(both) >= 1_300 and len(set(both)) == len(both)
    assert len({row[0] for row in blind + seen}) >= 60


@pytest.mark.parametrize("kind", sorted({row[0] for row in rows(BLIND, COLUMNS)}))
def test_the_reward_judges_as_a_careful_grader(reward: MathReward, kind: str) -> None:
    cases = [row for row in rows(BLIND, COLUMNS) if row[0] == kind]
    pairs = [
        (Problem(question or "?", reference, "p"), Completion(f"<think>so</think><answer>{answer}</answer>", 9, True))
        for _, answer, reference, _, _, question in cases
    ]
    verdicts = reward.judge_many(pairs)
    wrong = [
        f"{answer!r} for {reference!r} scores {verdict.score}, expected {expected}: {why}"
        for (_, answer, reference, expected, why, _), verdict in zip(cases, verdicts, strict=True)
        if verdict.score != float(expected)
    ]
    assert wrong == []
