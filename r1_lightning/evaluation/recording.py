"""Evaluates a model in blocks of questions, and writes each block's samples down before the next one is asked.

The draws of a question are keyed by its number, and blocks are the same whatever was done before: a block of which anything is
missing is drawn again as a whole. So an evaluation that was killed goes on with the very samples that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from r1_lightning.evaluation import records
from r1_lightning.evaluation.judged import Judged, Rules, judge
from r1_lightning.evaluation.protocol import Asking
from r1_lightning.evaluation.records import Record, Records
from r1_lightning.evaluation.runner import Evaluator
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.text.answers import given_answer
from r1_lightning.text.code_tests import TESTS
from r1_lightning.types.tensors import Backbone
from r1_lightning.types.text import Completion, Problem


def rules_of(evaluator: Evaluator) -> Rules:
    """Return how the evaluator's samples are judged; programs vote by their outputs."""
    form = evaluator.template.form
    return Rules(
        evaluator.accuracy or AccuracyReward(form=form), form, bool(evaluator.forced_prefix), programs_vote=True
    )


def asked_by(evaluator: Evaluator) -> list[Asking]:
    """Return the evaluator's questions as it asks them."""
    return [Asking.of(*pair) for pair in zip(evaluator.problems, evaluator.prompts(), strict=True)]


def blocks_to_draw(evaluator: Evaluator, found: Records) -> list[range]:
    """Return the blocks of questions of which `found` lacks anything; each is drawn as a whole."""
    missing, n_questions = set(found.missing), len(evaluator.problems)
    at_once = max(1, evaluator.config.max_rows // evaluator.config.samples)
    blocks = [range(start, min(start + at_once, n_questions)) for start in range(0, n_questions, at_once)]
    return [block for block in blocks if not missing.isdisjoint(block)]


def record(
    evaluator: Evaluator, backbone: Backbone, found: Records, progress: Callable[[int], None] | None = None
) -> Records:
    """Sample and judge all questions that `found` lacks, append them, and write results.json; returns all records.

    `progress` is called with the number of samples drawn.
    """
    rules = rules_of(evaluator)
    for numbers in blocks_to_draw(evaluator, found):
        drawn = evaluator.completions(backbone, progress, numbers)
        asked = [(evaluator.problems[number], row) for number, row in zip(numbers, drawn, strict=True)]
        judged = judge(asked, rules)
        rows = zip(numbers, asked, judged, strict=True)
        found = records.append(found, [item for n, pair, of in rows for item in _records(n, *pair, of, rules)])
    records.write_results(found, found.measures())
    return found


def _records(
    question: int, problem: Problem, samples: Sequence[Completion], judged: Sequence[tuple[Judged, str]], rules: Rules
) -> list[Record]:
    rows = enumerate(zip(samples, judged, strict=True))
    return [
        Record(question, number, sample, _answer(problem, sample, rules), judgement, reason)
        for number, (sample, (judgement, reason)) in rows
    ]


def _answer(problem: Problem, sample: Completion, rules: Rules) -> str | None:
    """The answer in its place, else the one at the end; None of a program, which is judged by what it does."""
    return None if TESTS in problem.metadata else given_answer(sample.text, rules.form)
