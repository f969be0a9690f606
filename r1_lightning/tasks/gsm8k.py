"""GSM8K: grade-school word problems as a problem source (Cobbe et al. 2021, arXiv:2110.14168; MIT licence).

A folder with `train.jsonl` and `test.jsonl`, one object per line with a `question` and an `answer`; the answer holds
the worked steps with calculator annotations such as <<48/2=24>>, and a last line `#### 24`.

Training problems and pre-training documents come from the first file, held-out problems from the second; a training
question that also stands in the test file is left out. Every pass over the rows has its own order, a permutation keyed
by (seed, pass), so that problem number `index` is a function of (seed, index) and each row comes once per pass.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from r1_lightning.text.answers import parse_number
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.types.errors import InvalidInput, require_int
from r1_lightning.types.text import Problem

GENERATOR_VERSION = 1  # goes up when the same files would give other problems or documents
MAX_LINE_CHARS = 100_000  # the longest line of the data set has about 1,500
_SHOWN_CHARS = 60

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_ANSWER_MARK = "####"
_STEPS = "steps"  # the key of a problem's metadata that holds the worked solution


class GSM8KTask:
    """The `ProblemSource` of GSM8K.

    Args:
        folder: where the two files lie.

    Raises:
        InvalidInput: a file is missing or empty, or a line is not what it should be; the message names file and line.
    """

    def __init__(self, folder: str) -> None:
        digest = hashlib.sha256()
        self._test = _read_problems(Path(folder) / "test.jsonl", digest)
        held_out_ids = {problem.problem_id for problem in self._test}
        rows = _read_problems(Path(folder) / "train.jsonl", digest)
        self._train = [problem for problem in rows if problem.problem_id not in held_out_ids]
        if not self._train:
            raise InvalidInput(
                f"{Path(folder) / 'train.jsonl'}: every question also stands in test.jsonl, none is left"
            )
        self.content_version = f"gsm8k-{GENERATOR_VERSION}-{digest.hexdigest()[:16]}"

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` (from 0, without end) of the endless sequence of passes that belongs to `seed`."""
        require_int("index", index, minimum=0)
        return self._train[_row_of(f"problems/{seed}", index, len(self._train))]

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` problems of the test file, in its order. `InvalidInput` if it has fewer."""
        require_int("held_out_problems", count, minimum=1, maximum=len(self._test))
        return self._test[:count]

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Training rows as text, each pass in another order and each row by chance in one of two forms.

        Half are a whole conversation in R1-Zero's template; half are the question and the solution in plain words, so
        that a base model knows how to reason without being bound to the tags.
        """
        require_int("start", start, minimum=0)
        require_int("count", count, minimum=0)
        for index in range(start, start + count):
            problem = self._train[_row_of(f"documents/{seed}", index, len(self._train))]
            with_tags = _keyed_number(f"form/{seed}/{index}") % 2 == 0
            yield reasoned_document(problem) if with_tags else plain_document(problem)


def reasoned_document(problem: Problem) -> str:
    """The problem and its solution as R1-Zero is meant to write it."""
    steps = problem.metadata[_STEPS]
    return f"{r1_zero_prompt(problem.question)} <think> {steps} </think> <answer> {problem.answer} </answer>"


def plain_document(problem: Problem) -> str:
    """The problem and its solution without any tag."""
    return f"Question: {problem.question}\nSolution: {problem.metadata[_STEPS]}\nThe answer is {problem.answer}."


def _read_problems(path: Path, digest: hashlib._Hash) -> list[Problem]:
    """All rows of one file; the file's bytes go into `digest`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{path} is not readable: {error.strerror}; GSM8K needs train.jsonl and test.jsonl"
        ) from error
    digest.update(len(content).to_bytes(8, "big") + content)
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: the file is not valid UTF-8 (byte {error.start})") from error
    problems = [
        _to_problem(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not problems:
        raise InvalidInput(f"{path} is empty: it needs one JSON object per line")
    return problems


def _to_problem(line: str, where: str) -> Problem:
    question, solution = _fields(line, where)
    steps, mark, answer = solution.rpartition(_ANSWER_MARK)
    answer = answer.strip().replace(",", "")
    if not mark or parse_number(answer) is None:
        _refuse(where, "answer", solution, f"it must end in '{_ANSWER_MARK} ' and a number")
    steps = _ANNOTATION.sub("", steps).strip()
    normalised = " ".join(question.casefold().split())
    problem_id = "gsm8k-" + hashlib.sha256(normalised.encode()).hexdigest()[:16]
    level = steps.count("\n") + 1  # one line is one step
    return Problem(question.strip(), answer, problem_id, level=level, metadata={_STEPS: steps})


def _fields(line: str, where: str) -> tuple[str, str]:
    """The question and the answer of one line of JSON."""
    if len(line) > MAX_LINE_CHARS:
        raise InvalidInput(f"{where}: {len(line)} characters are not allowed: a line has at most {MAX_LINE_CHARS}")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{where}: a JSON object is needed, not {type(row).__name__}")
    for field in ("question", "answer"):
        if field not in row:
            raise InvalidInput(f"{where}: the field {field!r} is missing")
        if not isinstance(row[field], str) or not row[field].strip():
            _refuse(where, field, row[field], "it must be a non-empty string")
        if not _is_unicode(row[field]):
            _refuse(where, field, row[field], "it must be valid Unicode, without unpaired surrogates")
    return row["question"], row["answer"]


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _refuse(where: str, field: str, value: object, allowed: str) -> None:
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."
    raise InvalidInput(f"{where}: {field}={shown} is not allowed: {allowed}")


def _row_of(key: str, index: int, n_rows: int) -> int:
    return _permutation(f"{key}/{index // n_rows}", n_rows)[index % n_rows]


@lru_cache(maxsize=8)
def _permutation(key: str, size: int) -> tuple[int, ...]:
    """The numbers below `size` in the order of their keyed hashes: the same on every machine and Python version."""
    return tuple(sorted(range(size), key=lambda number: _keyed_number(f"{key}/{number}")))


def _keyed_number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
