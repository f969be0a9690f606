"""One syntax for files of rows: `....file=FILE`.

    data.examples.file=FILE            fine-tuning
    task.source.train.file=FILE        (and `test.file`) problems
    data.preferences.file=FILE         a reward model
    data.traces.file=FILE              a teacher's text
    +stage.sources.NAME.file=FILE      rows to mix into a data set

For the last two the option file holds no reader that could take the value. This module inserts the reader's `_target_` before Hydra
parses the command line, so that nobody has to type it. `data.traces=FILE` works as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Pattern of an argument -> the class that reads the file.
READERS = (
    (re.compile(r"\+{0,2}(data\.traces)(?:\.file)?=([^{\[].*)", re.DOTALL), "r1_lightning.tasks.traces.TraceFile"),
    (
        re.compile(r"((?:\+\+?)?stage\.sources\.[\w-]+)\.file=(.+)", re.DOTALL),
        "r1_lightning.tasks.answered_file.AnsweredFile",
    ),
)
NOTHING = ("null", "~")


def with_readers(arguments: Sequence[str]) -> list[str]:
    """Return the command line with a reader for each file that has none; other arguments are unchanged."""
    return [_with_reader(argument) for argument in arguments]


def _with_reader(argument: str) -> str:
    for pattern, reader in READERS:
        found = pattern.fullmatch(argument)
        if found and found[2].strip().lower() not in NOTHING:
            return f"{found[1]}={{_target_: {reader}, file: {found[2]}}}"
    return argument
