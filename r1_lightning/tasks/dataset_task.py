"""Any data set as a problem source: an adaptor that reads its rows, training rows, and held-out rows.

Training problems come from `train`, held-out ones from `test`. A training row whose question also stands in `test` is left out.
Every pass over the rows has its own order, a permutation keyed by (seed, pass), so that problem number `index` is a function of
(seed, index) and each row comes once per pass.

Rows are read when they are first asked for, so that a configuration can be checked without network or files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.keyed import keyed_number, row_of_passes
from r1_lightning.tasks.rows import Rows
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.types.errors import InvalidInput, require, require_int
from r1_lightning.types.text import Problem

STEPS = "steps"  # the key of a problem's metadata that holds its worked solution


class Adaptor(Protocol):
    """Reads the rows of one format. `version` goes up when the same row would give another problem.

    `to_problem` gives None for a row that the adaptor's settings leave out, and raises `InvalidInput` for a broken one.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    def to_problem(self, row: Row) -> Problem | None: ...


class _Content(NamedTuple):
    train: list[Problem]
    test: list[Problem]
    version: str


class DatasetTask:
    """A `ProblemSource` over the rows of any adaptor.

    Args:
        adaptor: reads a row.
        train: where training problems come from; None: there are none, the task is a benchmark.
        test: where held-out problems come from; None: there are none.
    """

    def __init__(self, adaptor: Adaptor, train: Rows | None = None, test: Rows | None = None) -> None:
        require(train is not None or test is not None, "train", train, "rows are needed here or as test")
        self.adaptor = adaptor
        self.train = train
        self.test = test

    @property
    def content_version(self) -> str:
        """The adaptor's name and version, and a digest of everything that was read."""
        return self._content.version

    @property
    def n_train(self) -> int:
        """How many training problems one pass has."""
        return len(self._content.train)

    @property
    def n_held_out(self) -> int:
        return len(self._content.test)

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` (from 0, without end) of the endless sequence of passes that belongs to `seed`."""
        require_int("index", index, minimum=0)
        problems = self._training()
        return problems[row_of_passes(f"problems/{seed}", index, len(problems))]

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` problems of the test rows, in their order. `InvalidInput` if there are fewer."""
        if self.test is None:
            raise InvalidInput(f"{self.adaptor.name} has no test rows, and so no held-out problems: give them as test")
        require_int("held_out_problems", count, minimum=1, maximum=self.n_held_out)
        return self._content.test[:count]

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Training rows as text, each pass in another order and each row by chance in one of two forms.

        Half are a whole conversation in R1-Zero's template; half are the question and the solution in plain words, so
        that a base model knows how to reason without being bound to the tags. `InvalidInput` where the rows have no
        worked solutions.
        """
        require_int("start", start, minimum=0)
        require_int("count", count, minimum=0)
        problems = self._training()
        if not all(problem.metadata.get(STEPS) for problem in problems):
            raise InvalidInput(
                f"{self.adaptor.name} has no worked solutions to pre-train on: give a model by init_from=FOLDER"
            )
        for index in range(start, start + count):
            problem = problems[row_of_passes(f"documents/{seed}", index, len(problems))]
            with_tags = keyed_number(f"form/{seed}/{index}") % 2 == 0
            yield reasoned_document(problem) if with_tags else plain_document(problem)

    def _training(self) -> list[Problem]:
        if self.train is None:
            raise InvalidInput(
                f"{self.adaptor.name} has no training rows here, only held-out problems: give them as task.source.train"
            )
        return self._content.train

    @cached_property
    def _content(self) -> _Content:
        digest = hashlib.sha256()
        test = self._read(self.test, digest)
        held_out_ids = {problem.problem_id for problem in test}
        train = [problem for problem in self._read(self.train, digest) if problem.problem_id not in held_out_ids]
        if self.train is not None and not train:
            place = self.train.file or self.train.hub
            raise InvalidInput(f"{place}: every question also stands in the test rows, or is left out; none is left")
        version = f"{self.adaptor.name}-{self.adaptor.version}-{digest.hexdigest()[:16]}"
        return _Content(train, test, version)

    def _read(self, rows: Rows | None, digest: hashlib._Hash) -> list[Problem]:
        if rows is None:
            return []
        found = [self.adaptor.to_problem(row) for row in rows.read(digest)]
        problems = [problem for problem in found if problem is not None]
        if not problems:
            raise InvalidInput(f"{rows.file or rows.hub}: {self.adaptor.name} leaves out every row")
        return problems


def reasoned_document(problem: Problem) -> str:
    """The problem and its solution as R1-Zero is meant to write it."""
    steps = problem.metadata[STEPS]
    return f"{r1_zero_prompt(problem.question)} <think> {steps} </think> <answer> {problem.answer} </answer>"


def plain_document(problem: Problem) -> str:
    """The problem and its solution without any tag."""
    return f"Question: {problem.question}\nSolution: {problem.metadata[STEPS]}\nThe answer is {problem.answer}."
