"""The judgement of each sample of an evaluation, as numbers: what every measure is computed from, here or from stored records.

Processes judge shares of the samples. `JudgedSamples` puts them together as a metric of torchmetrics: its state is a table with a
row for each sample, which grows by `update` and is joined over processes by `compute`. A sample that two processes judged (a
sampler that fills up shares repeats some) is one row, so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from r1_lightning.rewards.accuracy import grades
from r1_lightning.rewards.language import LanguageConsistencyReward, thinking_words
from r1_lightning.rewards.voting import votes
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.language import is_mixed
from r1_lightning.text.readability import spoken
from r1_lightning.text.reasoning_format import R1_ZERO_FORM, FormName
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.text import Completion, Problem, RewardFunction

Asked = Sequence[tuple[Problem, Sequence[Completion]]]  # problems with the samples of each

NO_VOTE = -1.0
KEYS = 2  # the first columns of a row: the numbers of question and sample


@dataclass(frozen=True, slots=True)
class Judged:
    """One sample: the flags of `rewards.accuracy.Grade`, whether it ended by itself, and its tokens.

    `language` is the share of the thinking's words in the question's language, `thinking_words` their number; `mixed` says whether
    the text mixes languages. `vote` numbers the class of its answer among its question's samples; None is no vote.
    """

    strict: bool
    lenient: bool
    well_formed: bool
    accurate: bool
    finished: bool
    tokens: int
    language: float
    thinking_words: int
    mixed: bool
    vote: int | None


@dataclass(frozen=True)
class Rules:
    """How samples are judged: the accuracy reward, the completion format, and whether an empty think block is well formed.

    With `programs_vote` programs vote by their outputs; without it problems that ask for programs have no vote.
    """

    accuracy: RewardFunction
    form: FormName = R1_ZERO_FORM
    allow_empty_think: bool = False
    programs_vote: bool = False


def judge(asked: Asked, rules: Rules) -> list[list[tuple[Judged, str]]]:
    """Return for each problem the judgement of each sample, with the verdict's reason for people."""
    problems, completions = [problem for problem, _ in asked], [row for _, row in asked]
    pairs = [(problem, sample) for problem, row in asked for sample in row]
    flat = iter(grades(pairs, rules.accuracy, rules.allow_empty_think, rules.form))
    graded = [[next(flat) for _ in row] for row in completions]
    right = [[grade.lenient for grade in row] for row in graded]
    did = [[grade.verdict.behaviour for grade in row] for row in graded] if rules.programs_vote else None
    cast = votes(rules.accuracy, problems, completions, right, did)
    consistency = LanguageConsistencyReward()
    found: list[list[tuple[Judged, str]]] = []
    for (problem, row), of_row, ballots in zip(asked, graded, cast, strict=True):
        found.append([])
        for sample, grade, vote in zip(row, of_row, ballots, strict=True):
            judged = Judged(
                strict=grade.strict,
                lenient=grade.lenient,
                well_formed=grade.well_formed,
                accurate=grade.accurate,
                finished=sample.finished,
                tokens=sample.n_tokens,
                language=consistency(problem, sample).score,
                thinking_words=thinking_words(sample),
                mixed=is_mixed(spoken(sample.text, TESTS in problem.metadata)),
                vote=vote,
            )
            found[-1].append((judged, grade.verdict.reason))
    return found


class JudgedSamples(Metric):
    """Collects judgements over calls and processes; `judged` returns each question's, in order of question and sample."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, processes: Processes = ONE) -> None:
        super().__init__(
            dist_sync_fn=lambda rows, group: processes.collect(rows),
            distributed_available_fn=lambda: processes.count > 1,
        )
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, first_question: int, judged: Sequence[Sequence[Judged]]) -> None:
        """Add the judgements of questions `first_question`, `first_question` + 1, ...; none is allowed."""
        rows = [
            [question, number, *_numbers(sample)]
            for question, row in enumerate(judged, first_question)
            for number, sample in enumerate(row)
        ]
        table = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), KEYS + len(fields(Judged)))
        self.rows.append(table)

    def compute(self) -> Tensor:
        """Return the rows of all processes: question, sample and the judgement's numbers, each sample once, in that order."""
        return torch.unique(dim_zero_cat(self.rows), dim=0)  # which sorts, by the first column first

    def judged(self) -> list[list[Judged]]:
        """Return the judgements of all questions that any process added, by `compute`."""
        found: dict[int, list[Judged]] = {}
        for question, _, *values in self.compute().tolist():
            found.setdefault(int(question), []).append(_judged(values))
        return list(found.values())


def _numbers(sample: Judged) -> list[float]:
    return [NO_VOTE if value is None else float(value) for value in astuple(sample)]


def _judged(values: Sequence[float]) -> Judged:
    strict, lenient, well_formed, accurate, finished, tokens, language, words, mixed, vote = values
    graded = (bool(strict), bool(lenient), bool(well_formed), bool(accurate), bool(finished))
    return Judged(*graded, int(tokens), language, int(words), bool(mixed), None if vote == NO_VOTE else int(vote))
