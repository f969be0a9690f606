"""A problem source over any data set: an adaptor, training rows, and test rows.

Training problems come from `train`, held-out ones from `test`. A training row whose question is also in `test` is dropped. Without
`test`, a test split next to the training rows is used (`test.jsonl` next to `train.jsonl`); if there is none, a hash of the
question holds out one question in ten. Every pass over the rows has its own order, a permutation keyed by (seed, pass), so that
problem number `index` is a function of (seed, index) and each row comes once per pass.

Rows are read on first use, so that a configuration can be checked without network or files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.keyed import keyed_number, row_of_passes
from r1_lightning.tasks.reading import REFUSE, UNREADABLE, Reading, items_of
from r1_lightning.tasks.rows import Rows
from r1_lightning.tasks.solved import Solved
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int
from r1_lightning.types.text import Problem

HELD_OUT = 500  # the number of problems of an evaluation by default
STEPS = "steps"  # the key of a problem's metadata that holds its worked solution


class Adaptor(Protocol):
    """Reads the rows of one format; increment `version` when the same row gives another problem.

    `to_problem` returns None for a row that the adaptor's settings exclude, and raises `InvalidInput` for a broken one.
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
    places: dict[str, str]
    notes: list[str]


class DatasetTask:
    """A `ProblemSource` over the rows of any adaptor.

    Args:
        adaptor: reads a row.
        train: the rows of training problems; None: the task is a benchmark without training problems.
        test: the rows of held-out problems; None, or rows with neither file nor hub: see above.
        held_out: without test rows, at most this many training questions are held out; 0: none.
        unreadable: "refuse" stops at the first unreadable row; "drop" skips such rows, and counts them.
    """

    def __init__(
        self,
        adaptor: Adaptor,
        train: Rows | None = None,
        test: Rows | None = None,
        held_out: int = HELD_OUT,
        unreadable: str = REFUSE,
    ) -> None:
        require(train is not None or test is not None, "train", train, "rows are needed here or as test")
        require_int("task.source.held_out", held_out, 0)
        require_choice("task.source.unreadable", unreadable, UNREADABLE)
        self.adaptor = adaptor
        self.train = train
        self.test = test if test is not None and test.is_named else None
        self.held_out, self.unreadable = held_out, unreadable

    @property
    def content_version(self) -> str:
        """The adaptor's name and version, and a digest of everything that was read."""
        return self._content.version

    @property
    def n_train(self) -> int:
        """The number of training problems in one pass."""
        return len(self._content.train)

    @property
    def n_held_out(self) -> int:
        return len(self._content.test)

    def train_problem(self, seed: int, index: int) -> Problem:
        """Return problem number `index` (from 0) of the endless sequence of passes for `seed`."""
        require_int("index", index, minimum=0)
        problems = self._training()
        return problems[row_of_passes(f"problems/{seed}", index, len(problems))]

    def solved_problem(self, seed: int, index: int) -> Solved:
        """Return training problem number `index` with its worked solution. `InvalidInput` if its row has none."""
        problem = self.train_problem(seed, index)
        if not (steps := problem.metadata.get(STEPS)):
            raise InvalidInput(f"{self.adaptor.name} has no worked solutions to write as traces")
        return Solved(problem, (steps,), is_prose=True)

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """Return the first `count` held-out problems in row order, or all if there are fewer. `InvalidInput` if there is none."""
        require_int("held_out_problems", count, minimum=1)
        if not self._content.test:
            raise InvalidInput(f"{self.adaptor.name} has no test rows, and so no held-out problems: give them as test")
        return self._content.test[:count]

    def place_of(self, problem: Problem) -> str:
        """Return the place of a problem's row ("train.jsonl, line 7"); "" for a problem that is not from these rows."""
        return self._content.places.get(problem.problem_id, "")

    @property
    def notes(self) -> Sequence[str]:
        """Remarks for the user about how the rows were read, one line each."""
        return self._content.notes

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Yield training rows as text, each pass in another order and each row at random in one of two forms.

        Half are a complete conversation in R1-Zero's template; half are the question and the solution in plain words, so that a
        base model learns to reason without always using the tags. `InvalidInput` if the rows have no worked solutions.
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
        notes: list[str] = []
        places: dict[str, str] = {}
        beside = self.train.beside("test") if self.test is None and self.train is not None else None
        test = self._read(self.test or beside, digest, notes, places)
        held_out_ids = {problem.problem_id for problem in test}
        everything = self._read(self.train, digest, notes, places)
        train = [problem for problem in everything if problem.problem_id not in held_out_ids]
        if self.train is not None and not train:
            raise InvalidInput(
                f"{self.train.place}: no training question is left: each is also in the test rows, or is skipped"
            )
        if not test and (wanted := self._held_out_ids(train)):
            digest.update(f"held out {len(wanted)}".encode())
            test = list(
                {problem.problem_id: problem for problem in reversed(train) if problem.problem_id in wanted}.values()
            )[::-1]
            train = [problem for problem in train if problem.problem_id not in wanted]
            notes.append(f"no test rows: {len(test)} of {len(test) + len(train)} training problems are held out")
        version = f"{self.adaptor.name}-{self.adaptor.version}-{digest.hexdigest()[:16]}"
        return _Content(train, test, version, places, notes)

    def _held_out_ids(self, train: Sequence[Problem]) -> set[str]:
        """Return the ids of one question in ten, chosen by a hash; at least one if there are two or more."""
        ids = sorted({problem.problem_id for problem in train}, key=lambda name: keyed_number(f"held out/{name}"))
        return set(ids[: min(self.held_out, max(1, len(ids) // 10)) if len(ids) > 1 else 0])

    def _read(
        self, rows: Rows | None, digest: hashlib._Hash, notes: list[str], places: dict[str, str]
    ) -> list[Problem]:
        """Return the problems of `rows`; store each row's place in `places`, and remarks for the user in `notes`."""
        if rows is None:
            return []
        reading = Reading()
        found = list(items_of(rows.read(digest), self.adaptor.to_problem, self.adaptor, self.unreadable, reading))
        if not found:
            told = f" ({reading.text()})" if reading.unreadable else ""
            raise InvalidInput(f"{rows.place}: {self.adaptor.name} leaves out every row{told}")
        for row, problem in found:
            places.setdefault(problem.problem_id, row.where)
        if reading.formats or reading.unreadable:
            notes.append(f"{rows.place}: {reading.text()}")
        return [problem for _, problem in found]


def reasoned_document(problem: Problem) -> str:
    """Return the problem with its solution in R1-Zero's template."""
    steps = problem.metadata[STEPS]
    return f"{r1_zero_prompt(problem.question)} <think> {steps} </think> <answer> {problem.answer} </answer>"


def plain_document(problem: Problem) -> str:
    """Return the problem with its solution, without tags."""
    return f"Question: {problem.question}\nSolution: {problem.metadata[STEPS]}\nThe answer is {problem.answer}."
