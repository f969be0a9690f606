"""What an evaluation's records allow to be said, in lines for people: how sure a number is, and how two models compare.

Two intervals answer two questions, and each is named where it is printed. Over questions: would the model score the same on other
questions like these? Over training seeds: would another training with this recipe score the same? A single training says nothing
about the second.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from r1_lightning.evaluation.protocol import Asking
from r1_lightning.evaluation.records import Records
from r1_lightning.functional.intervals import mean_interval_t
from r1_lightning.functional.uncertainty import paired_difference, standard_error_of_questions, variance_parts
from r1_lightning.types.errors import require

Scores = list[list[bool]]
OVER_QUESTIONS = "over questions"
OVER_SEEDS = "over training seeds"


def how_sure(records: Records) -> list[str]:
    """Return lines on pass@1, strict and lenient: the interval's name, its standard error, and what more samples can shrink."""
    cut = 1 - records.measures()["finished_rate"].value
    lines = [
        f"intervals are 95 % {OVER_QUESTIONS} (whole questions resampled); of one training, so nothing {OVER_SEEDS}",
        f"truncated: {cut:.1%} of samples reached {records.protocol.max_new_tokens} tokens",
    ]
    return lines + [f"{name}: {_spread(scores)}" for name, scores in records.scores().items()]


def _spread(scores: Scores) -> str:
    """The standard error of a mean over questions, and where it comes from."""
    questions, samples = len(scores), len(scores[0])
    error = f"standard error {OVER_QUESTIONS} {standard_error_of_questions(scores):.4f} ({questions} questions)"
    if min(questions, samples) < 2:
        return f"{error}; one sample of a question does not show how much of that is sampling"
    parts = variance_parts(scores)
    whole = parts.data + parts.sampling
    if whole == 0:
        return f"{error}; no variance was seen"
    k = parts.samples_to_halve
    half = f"k = {k} would halve it" if k else "no k halves it, only more questions"
    return (
        f"{error}; {parts.data / whole:.0%} of the variance from which questions were asked, {parts.sampling / whole:.0%} from "
        f"sampling (k = {samples}; {half}); the same questions with other draws: standard error {math.sqrt(parts.sampling):.4f}"
    )


def compared(first: Records, second: Records) -> list[str]:
    """Return lines on the difference in pass@1, strict and lenient, paired by question.

    Raises `InvalidInput` if the two share no question.
    """
    names = f"{first.protocol.model} minus {second.protocol.model}"
    lines = []
    for measure in first.scores():
        found = paired_difference(*shared(first, second, measure))
        low, high = found.interval.low, found.interval.high
        verdict = "they differ" if found.is_seen else "no difference is seen"
        lines.append(
            f"{measure} of {names}, paired over {found.questions} questions: {found.interval.estimate:+.4f} "
            f"[{low:+.4f}, {high:+.4f}] (95 % {OVER_QUESTIONS}): {verdict}; standard error {found.standard_error:.4f}; "
            f"the smallest difference that would have been seen: {found.smallest_visible:.4f} (80 % power, 5 % level)"
        )
    if others := first.protocol.differences(second.protocol):
        lines.append(f"not the same protocol: {'; '.join(others)}")
    left = len(first.asked) + len(second.asked) - 2 * found.questions
    return [*lines, f"{left} questions stand in one of both only, and were left out"] if left else lines


def shared(first: Records, second: Records, measure: str) -> tuple[Scores, Scores]:
    """Return the scores behind `measure` of the questions that both records hold, in the order of the first."""
    rows = dict(zip(_names(second.asked), second.scores()[measure], strict=True))
    pairs = zip(_names(first.asked), first.scores()[measure], strict=True)
    both = [(row, rows[name]) for name, row in pairs if name in rows]
    require(bool(both), "records", str(second.folder), f"it shares no question with {first.folder}")
    return [row for row, _ in both], [row for _, row in both]


def _names(asked: Sequence[Asking]) -> list[tuple[str, str, str, int]]:
    """Name each question by id, text and reference, and by how often that came before: a benchmark may repeat a question."""
    before: Counter[tuple[str, str, str]] = Counter()
    names = []
    for item in asked:
        name = (item.problem_id, item.text, item.reference)
        names.append((*name, before[name]))
        before[name] += 1
    return names


def over_seeds(trainings: Sequence[Records]) -> list[str]:
    """Return a line for each measure: its mean over trainings that differ by their seed, with Student's interval.

    Raises `InvalidInput` for fewer than 2 trainings, and for records of different protocols or of the same weights.
    """
    first, *others = trainings
    require(
        bool(others), "seeds", 1, "an interval over training seeds needs the records of at least 2 trainings, better 3"
    )
    for other in others:
        differences = first.protocol.differences(other.protocol)
        require(
            not differences,
            "records",
            str(other.folder),
            f"not the protocol of {first.folder}: {'; '.join(differences)}",
        )
    weights = [records.protocol.weights for records in trainings]
    require(len(set(weights)) == len(weights), "seeds", len(set(weights)), "two of the records are of the same weights")
    measured = [records.measures() for records in trainings]
    lines = [
        f"mean and 95 % interval {OVER_SEEDS} (Student's t, n = {len(trainings)}); each number: the same questions"
    ]
    for name in measured[0]:
        found = mean_interval_t([measures[name].value for measures in measured])
        lines.append(f"{name}  {found.estimate:.4f} [{found.low:.4f}, {found.high:.4f}]")
    return lines
