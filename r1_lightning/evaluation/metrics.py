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

from r1_lightning.functional.intervals import (
    Interval,
    bootstrap_mean_interval,
    pass_at_k,
    share_interval,
    wilson_interval,
)
from r1_lightning.rewards.accuracy import AccuracyReward, Grade, grades
from r1_lightning.rewards.language import LanguageConsistencyReward, thinking_words
from r1_lightning.rewards.voting import majorities_right
from r1_lightning.tasks.family import TASK
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.language import is_mixed
from r1_lightning.text.readability import spoken
from r1_lightning.text.reasoning_format import R1_ZERO_FORM, FormName
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
) -> dict[str, Measure]:
    """Return the measures by name, from k completions in format `form` per problem; `accuracy` judges them, by default exactly.

    Each of the `processes`, which all have the same completions, judges its share of the problems.

    Names: pass_at_1, pass_at_1_lenient, pass_at_2, pass_at_4, ... and pass_at_k of all k samples, cons_at_k, format_rate,
    completion_tokens_mean, language_consistency, wordless_thinking_rate, mixed_language_rate, finished_rate.
    The vote of cons_at_k groups answers by the equality of `accuracy` (`rewards.voting`). Programs cannot be compared and do not
    vote: if all problems ask for programs, there is no cons_at_k. If problems come from several tasks of a `FamilyTask`
    (`tasks/family.py`), pass_at_1 and pass_at_1_lenient are also given per task: pass_at_1_TASK.
    """
    accuracy = accuracy or AccuracyReward(form=form)
    rules = (accuracy, allow_empty_think, form)
    mine = processes.share(list(zip(problems, completions, strict=True)))
    together = processes.gather(STOP.together(lambda: _judged(mine, *rules), processes.any, processes.collect))
    graded = [row for row, _ in together]

    def mean(value: Callable[[int, int], float], rows: Sequence[int] = range(len(completions))) -> Measure:
        table = np.array([[value(i, j) for j in range(len(completions[i]))] for i in rows], dtype=float)
        clusters = np.repeat(np.arange(len(table)), table.shape[1])
        interval = share_interval if table.max() <= 1 else bootstrap_mean_interval
        return Measure(float(table.mean()), interval(table.ravel(), clusters))

    consistency = LanguageConsistencyReward()
    votes = [vote for _, vote in together if vote is not None]
    of_tasks = {}
    for task, rows in _rows_of_tasks(problems).items():
        of_tasks[f"pass_at_1_{task}"] = mean(lambda i, j: graded[i][j].strict, rows)
        of_tasks[f"pass_at_1_lenient_{task}"] = mean(lambda i, j: graded[i][j].lenient, rows)
    return {
        "pass_at_1": mean(lambda i, j: graded[i][j].strict),
        "pass_at_1_lenient": mean(lambda i, j: graded[i][j].lenient),
        **_passes([sum(grade.strict for grade in row) for row in graded], len(completions[0])),
        **_consensus(votes, len(completions[0])),
        "format_rate": mean(lambda i, j: graded[i][j].well_formed),
        "completion_tokens_mean": mean(lambda i, j: completions[i][j].n_tokens),
        "language_consistency": mean(lambda i, j: consistency(problems[i], completions[i][j]).score),
        "wordless_thinking_rate": mean(lambda i, j: thinking_words(completions[i][j]) == 0),
        "mixed_language_rate": mean(
            lambda i, j: is_mixed(spoken(completions[i][j].text, TESTS in problems[i].metadata))
        ),
        "finished_rate": mean(lambda i, j: completions[i][j].finished),
        **of_tasks,
    }


def _judged(
    asked: Sequence[tuple[Problem, Sequence[Completion]]],
    accuracy: RewardFunction,
    allow_empty_think: bool,
    form: FormName,
) -> list[tuple[list[Grade], bool | None]]:
    """Return for each problem the grades of its samples, and whether their vote is right (None: there is none)."""
    pairs = [(problem, sample) for problem, row in asked for sample in row]
    flat = iter(grades(pairs, accuracy, allow_empty_think, form))
    graded = [[next(flat) for _ in row] for _, row in asked]
    right = [[grade.lenient for grade in row] for row in graded]
    voted = majorities_right(accuracy, [problem for problem, _ in asked], [row for _, row in asked], right)
    return list(zip(graded, voted, strict=True))


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


def _rows_of_tasks(problems: Sequence[Problem]) -> dict[str, list[int]]:
    """Return the problem numbers of each task; empty unless the problems come from several tasks."""
    rows: dict[str, list[int]] = {}
    for number, problem in enumerate(problems):
        if TASK in problem.metadata:
            rows.setdefault(problem.metadata[TASK], []).append(number)
    return rows if len(rows) > 1 else {}
