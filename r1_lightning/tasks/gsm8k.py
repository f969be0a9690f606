"""GSM8K: grade-school word problems as a problem source (Cobbe et al. 2021, arXiv:2110.14168; MIT licence).

Reads a folder with `train.jsonl` and `test.jsonl`, one object per line with a `question` and an `answer`; the answer holds
the worked steps with calculator annotations such as <<48/2=24>>, and a last line `#### 24`.

`GSM8KTask` is a `DatasetTask` over that folder that reads the files at construction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from r1_lightning.tasks.dataset_task import STEPS, DatasetTask
from r1_lightning.tasks.fields import Row, question_id
from r1_lightning.tasks.rows import Rows
from r1_lightning.text.answers import parse_number
from r1_lightning.text.language import question_language
from r1_lightning.types.text import Problem

MAX_LINE_CHARS = 100_000  # the longest line of the data set has about 1,500

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_ANSWER_MARK = "####"


@dataclass(frozen=True)
class GSM8K:
    """Rows with a `question` and an `answer` that ends in `#### number`. The level is the number of steps."""

    name: ClassVar[str] = "gsm8k"
    version: ClassVar[int] = 2

    def to_problem(self, row: Row) -> Problem:
        question, solution = row.text("question"), row.text("answer")
        steps, mark, answer = solution.rpartition(_ANSWER_MARK)
        answer = answer.strip().replace(",", "")
        if not mark or parse_number(answer) is None:
            row.refuse("answer", solution, f"it must end in '{_ANSWER_MARK} ' and a number")
        steps = _ANNOTATION.sub("", steps).strip()
        level = steps.count("\n") + 1  # one line is one step
        problem_id, language = question_id(self.name, question), question_language(question)
        return Problem(question.strip(), answer, problem_id, language, level, {STEPS: steps})


class GSM8KTask(DatasetTask):
    """The `ProblemSource` of GSM8K.

    Args:
        folder: the folder with the two files.

    Raises:
        InvalidInput: a file is missing or empty, or a line is malformed; the message names file and line.
    """

    def __init__(self, folder: str) -> None:
        train, test = (
            Rows(str(Path(folder) / f"{name}.jsonl"), max_row_chars=MAX_LINE_CHARS) for name in ("train", "test")
        )
        super().__init__(GSM8K(), train, test)
        _ = self._content  # reads the files now, so that a bad one raises here
