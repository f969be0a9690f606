"""What is said of records, with the numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from r1_lightning.evaluation.judged import Judged
from r1_lightning.evaluation.protocol import Asking
from r1_lightning.evaluation.records import Record, Records
from r1_lightning.evaluation.statements import compared, how_sure, over_seeds, shared
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion
from tests.evaluation.test_protocol import PROTOCOL


def records_of(scores: Sequence[Sequence[int]], names: str = "abcd", **protocol: object) -> Records:
    """Records whose samples are right (1) or wrong (0); question i has the i-th of `names` as its id and text."""
    asked = [Asking(name, name, "1", "en", "") for name in names[: len(scores)]]
    samples = {}
    for q, row in enumerate(scores):
        for s, right in enumerate(map(bool, row)):
            judged = Judged(right, right, True, right, s > 0, 5, 1.0, 1, False, int(right))
            samples[q, s] = Record(q, s, Completion("", 5, s > 0), None, judged, "")
    made = replace(PROTOCOL, samples=len(scores[0]), questions=len(scores), **protocol)
    return Records(Path(str(protocol.get("model", "m"))), made, asked, samples)


# Means 1/4, 1/2, 3/4, 0; see tests/functional/test_uncertainty.py for the standard error and the variance's parts.
SCORES = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_how_sure_a_number_is() -> None:
    lines = how_sure(records_of(SCORES))
    assert lines[0].startswith("intervals are 95 % over questions") and "nothing over training seeds" in lines[0]
    assert lines[1] == "truncated: 25.0% of samples reached 12 tokens"
    assert lines[2] == (
        "pass_at_1: standard error over questions 0.1614 (4 questions); 50% of the variance from which questions were asked, 50% "
        "from sampling (k = 4; no k halves it, only more questions); the same questions with other draws: standard error 0.1141"
    )  # sqrt(0.0130208) = 0.1141
    assert lines[3] == lines[2].replace("pass_at_1", "pass_at_1_lenient")


def test_how_sure_where_sampling_is_all() -> None:
    """Two questions, each right half of the time: all of the variance is of sampling, and twice the samples halve it."""
    assert "100% from sampling (k = 2; k = 4 would halve it)" in how_sure(records_of([[1, 0], [0, 1]]))[2]
    assert how_sure(records_of([[1], [0]]))[2].endswith(
        "one sample of a question does not show how much of that is sampling"
    )
    assert how_sure(records_of([[1, 1], [1, 1]]))[2].endswith("no variance was seen")


def test_a_comparison_is_paired_by_question() -> None:
    """The second asks the questions in another order, and one that the first does not have."""
    other = records_of([[0, 0], [1, 0], [1, 0], [1, 1], [0, 0]], "dcbxa", model="n")
    assert shared(records_of(SCORES), other, "pass_at_1") == (SCORES, [[0, 0], [1, 0], [1, 0], [0, 0]])
    lines = compared(records_of(SCORES), other)
    # Differences 0.25, 0, 0.25, 0; standard error sqrt(0.0625 / 12) = 0.0722, times 2.8016 = 0.2022.
    assert lines[0] == (
        "pass_at_1 of m minus n, paired over 4 questions: +0.1250 [+0.0000, +0.2500] (95 % over questions): no difference is seen; "
        "standard error 0.0722; the smallest difference that would have been seen: 0.2022 (80 % power, 5 % level)"
    )
    assert lines[1] == lines[0].replace("pass_at_1", "pass_at_1_lenient")
    assert lines[2] == "not the same protocol: questions: 4 and 5; samples: 4 and 2"
    assert lines[3] == "1 questions stand in one of both only, and were left out"
    assert "they differ" in compared(records_of([[1, 1]] * 3), records_of([[0, 0]] * 3))[0]


def test_right_in_any_form_is_compared_apart() -> None:
    """A model that answers without the form asked for: nothing is right strictly, everything leniently."""
    made = records_of([[0, 0], [0, 0]])
    loose = {key: replace(item, judged=replace(item.judged, lenient=True)) for key, item in made.samples.items()}
    lines = compared(replace(made, samples=loose), records_of([[0, 0], [0, 0]]))
    assert "pass_at_1 of m minus m, paired over 2 questions: +0.0000" in lines[0]
    assert "pass_at_1_lenient of m minus m, paired over 2 questions: +1.0000" in lines[1]


def test_a_question_that_a_benchmark_repeats_is_paired_in_order() -> None:
    first, second = records_of([[1], [0]], "aa"), records_of([[0], [1]], "aa")
    assert shared(first, second, "pass_at_1") == ([[1], [0]], [[0], [1]])
    with pytest.raises(InvalidInput, match="it shares no question with"):
        compared(first, records_of([[0]], "z"))


def test_trainings_have_students_interval() -> None:
    """Three trainings with pass@1 of 0.25, 0.5 and 0.75: 0.5 ± 4.302653 * 0.25 / sqrt(3) = 0.6210."""
    trainings = [records_of([row, row], weights=str(number)) for number, row in enumerate(SCORES[:3])]
    lines = over_seeds(trainings)
    assert lines[0].startswith("mean and 95 % interval over training seeds (Student's t, n = 3)")
    assert lines[1] == "pass_at_1  0.5000 [-0.1210, 1.1210]"


def test_trainings_must_be_comparable_and_several() -> None:
    one = records_of(SCORES)
    with pytest.raises(InvalidInput, match="at least 2 trainings"):
        over_seeds([one])
    with pytest.raises(InvalidInput, match="two of the records are of the same weights"):
        over_seeds([one, one])
    with pytest.raises(InvalidInput, match=r"not the protocol of m: top_p: 0\.95 and 1\.0"):
        over_seeds([one, records_of(SCORES, weights="x", top_p=1.0)])
