"""Evaluation metrics from a model's samples on held-out problems, each with a 95 % interval.

pass@1 is the mean over problems of the share of right samples, counted strictly (format and answer) and leniently (the right
answer at the end, in any format); cons@k is the accuracy of the majority vote over k answers (R1v2 appendix D.1). pass@k, strict,
is the unbiased estimate of the chance that at least one of k samples is right (`functional.intervals.pass_at_k`). Intervals of
means come from a bootstrap over problems, because samples of one problem are not independent; if all problems have the same mean,
the bootstrap has no spread, and Wilson's interval over the problems replaces it (`share_interval`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from r1_lightning.evaluation.judged import Judged, JudgedSamples, Rules, judge
from r1_lightning.evaluation.kept import Sampled
from r1_lightning.functional.intervals import (
    Interval,
    bootstrap_mean_interval,
    pass_at_k,
    share_interval,
    wilson_interval,
)
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.voting import is_majority_right
from r1_lightning.tasks.family import TASK
from r1_lightning.text.code_tests import TESTS, CodeTests
from r1_lightning.text.reasoning_format import R1_ZERO_FORM, FormName
from r1_lightning.types.errors import require
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.text import Completion, Problem, RewardFunction


@dataclass(frozen=True)
class Measure:
    """One metric with its 95 % interval: a share (0..1), or a mean in the unit that its name says (tokens, score)."""

    value: float
    interval: Interval


def measure_samples(
    problems: Sequence[Problem],
    completions: Sequence[Sequence[Completion]],
    allow_empty_think: bool = False,
    accuracy: RewardFunction | None = None,
    form: FormName = R1_ZERO_FORM,
    processes: Processes = ONE,
    see: Callable[[Sequence[tuple[int, Sampled]]], None] | None = None,
) -> dict[str, Measure]:
    """Return the measures by name, from k completions in format `form` per problem; `accuracy` judges them, by default exactly.

    `see` is shown what this process has judged, by the number of the problem; all processes call it once.

    Each of the `processes`, which all have the same completions, judges its share of the problems. The vote of cons_at_k groups
    answers by the equality of `accuracy` (`rewards.voting`); programs do not vote here. See `measures_of` for the names.
    """
    rules = Rules(accuracy or AccuracyReward(form=form), form, allow_empty_think)
    asked = list(enumerate(zip(problems, completions, strict=True)))
    mine = processes.share(asked)
    judged = STOP.together(lambda: judge([pair for _, pair in mine], rules), processes.any)
    if see is not None:
        see([(number, (*pair, of)) for (number, pair), of in zip(mine, judged, strict=True)])
    samples = JudgedSamples(processes)
    samples.update(mine[0][0] if mine else 0, [[sample for sample, _ in row] for row in judged])
    return measures_of(samples.judged(), [Question.of(problem) for problem in problems])


@dataclass(frozen=True, slots=True)
class Question:
    """What the measures need to know of a question: its task ("" if there is one only), and whether its samples vote.

    Programs vote only if asked, and only where their outputs are known: a test script (HumanEval) says no more than right or wrong.
    """

    task: str = ""
    votes: bool = True

    @classmethod
    def of(cls, problem: Problem, programs_vote: bool = False) -> Question:
        tests = problem.metadata.get(TESTS)
        votes = tests is None or (programs_vote and CodeTests.from_json(tests).kind != "assert")
        return cls(problem.metadata.get(TASK, ""), votes)


def measures_of(judged: Sequence[Sequence[Judged]], asked: Sequence[Question]) -> dict[str, Measure]:
    """Return the measures by name, from the judgements of k samples of each question.

    Names: pass_at_1, pass_at_1_lenient, pass_at_2, pass_at_4, ... and pass_at_k of all k samples, cons_at_k, format_rate,
    completion_tokens_mean, language_consistency, wordless_thinking_rate, mixed_language_rate, finished_rate. If no question votes
    (programs), there is no cons_at_k. If questions come from several tasks of a `FamilyTask` (`tasks/family.py`), pass_at_1 and
    pass_at_1_lenient are also given per task: pass_at_1_TASK. Raises `InvalidInput` unless all have equally many samples.
    """
    sizes = sorted({len(row) for row in judged})
    require(len(judged) == len(asked) and len(sizes) == 1, "samples", sizes, "equally many for each question")

    def mean(value: Callable[[Judged], float], rows: Sequence[int] = range(len(judged))) -> Measure:
        table = np.array([[value(sample) for sample in judged[i]] for i in rows], dtype=float)
        clusters = np.repeat(np.arange(len(table)), table.shape[1])
        interval = share_interval if table.max() <= 1 else bootstrap_mean_interval
        return Measure(float(table.mean()), interval(table.ravel(), clusters))

    cast = [
        is_majority_right([sample.vote for sample in row], [sample.lenient for sample in row])
        for row, question in zip(judged, asked, strict=True)
        if question.votes
    ]
    of_tasks = {}
    for task, rows in _rows_of_tasks(asked).items():
        of_tasks[f"pass_at_1_{task}"] = mean(lambda sample: sample.strict, rows)
        of_tasks[f"pass_at_1_lenient_{task}"] = mean(lambda sample: sample.lenient, rows)
    return {
        "pass_at_1": mean(lambda sample: sample.strict),
        "pass_at_1_lenient": mean(lambda sample: sample.lenient),
        **_passes([sum(sample.strict for sample in row) for row in judged], sizes[0]),
        **_consensus(cast, sizes[0]),
        "format_rate": mean(lambda sample: sample.well_formed),
        "completion_tokens_mean": mean(lambda sample: sample.tokens),
        "language_consistency": mean(lambda sample: sample.language),
        "wordless_thinking_rate": mean(lambda sample: sample.thinking_words == 0),
        "mixed_language_rate": mean(lambda sample: sample.mixed),
        "finished_rate": mean(lambda sample: sample.finished),
        **of_tasks,
    }


def _passes(right: Sequence[int], samples: int) -> dict[str, Measure]:
    """Return the unbiased pass@k for k = 2, 4, 8, ... and all samples; `right` counts each problem's strictly right samples."""
    counts = sorted({samples, *(2**power for power in range(1, samples.bit_length()))} - {1})
    found = {}
    for k in (count for count in counts if count <= samples):
        shares = [pass_at_k(samples, count, k) for count in right]
        found[f"pass_at_{k}"] = Measure(float(np.mean(shares)), share_interval(shares))
    return found


def _consensus(votes: Sequence[bool], samples: int) -> dict[str, Measure]:
    if not votes:
        return {}
    share = wilson_interval(sum(votes), len(votes))
    return {f"cons_at_{samples}": Measure(share.estimate, share)}


def _rows_of_tasks(asked: Sequence[Question]) -> dict[str, list[int]]:
    """Return the question numbers of each task; empty unless the questions come from several tasks."""
    rows: dict[str, list[int]] = {}
    for number, question in enumerate(asked):
        if question.task:
            rows.setdefault(question.task, []).append(number)
    return rows if len(rows) > 1 else {}
