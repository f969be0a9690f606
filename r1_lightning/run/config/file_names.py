"""One way to name a file: `....file=FILE`, wherever rows come from.

    data.examples.file=FILE            fine-tuning
    task.source.train.file=FILE        (and `test.file`) problems
    data.preferences.file=FILE         a reward model
    data.traces.file=FILE              a teacher's text
    +stage.sources.NAME.file=FILE      rows to mix into a data set

In the last two nothing stands in the option file that could take the value: there the reader itself has to be named. That is put in
here, before Hydra reads the command line, so that nobody has to type it. `data.traces=FILE` is understood as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# What is typed -> the class that reads the file.
READERS = (
    (re.compile(r"\+{0,2}(data\.traces)(?:\.file)?=([^{\[].*)", re.DOTALL), "r1_lightning.tasks.traces.TraceFile"),
    (
        re.compile(r"((?:\+\+?)?stage\.sources\.[\w-]+)\.file=(.+)", re.DOTALL),
        "r1_lightning.tasks.answered_file.AnsweredFile",
    ),
)
NOTHING = ("null", "~")


def with_readers(arguments: Sequence[str]) -> list[str]:
    """The command line with a reader for each file that has none; everything else stays as it is."""
    return [_with_reader(argument) for argument in arguments]


def _with_reader(argument: str) -> str:
    for pattern, reader in READERS:
        found = pattern.fullmatch(argument)
        if found and found[2].strip().lower() not in NOTHING:
            return f"{found[1]}={{_target_: {reader}, file: {found[2]}}}"
    return argument
