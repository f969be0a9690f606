"""Exit codes of commands, for shells and batch scripts.

    0    done
    1    a defect, with its traceback; or, in a run of several processes, `LOST`: another one is gone
    2    bad input, in one line
    75   `REQUEUE`: SIGTERM or SIGUSR1 came; the run is saved, and the same command goes on with it
    124  `trainer.max_time` is over; saved as well, but nobody asked for another attempt
    130  Ctrl-C; saved as well
    138, 143  `KILLED`: SIGUSR1 or SIGTERM came twice, or before Python could listen; the last checkpoint holds

A batch script queues the same command again after the codes in `AGAIN`, and after no other. `srun` tells it the highest code of all
tasks, and ends the others by SIGTERM when one fails, which they may answer with `REQUEUE`. So each task notes its own (`note`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from r1_lightning.types.errors import STOPPED_BY_TIME, InvalidInput
from r1_lightning.types.stopping import REQUEUE

DEFECT = 1  # as Python itself ends after a traceback
BAD_INPUT = 2
LOST = 1  # another process of the run is gone or silent; it has said why, unless it was killed
INTERRUPTED = 128 + signal.SIGINT  # as a shell reports it
KILLED = tuple(128 + getattr(signal, name) for name in ("SIGUSR1", "SIGTERM") if hasattr(signal, name))
AGAIN = (REQUEUE, *KILLED)
OUT_OF_TIME = STOPPED_BY_TIME
NOTED = "R1_EXIT_CODES"  # the file in which the tasks of a batch job note their codes, one a line; set by its script


def note(code: int, environment: Mapping[str, str] = os.environ) -> None:
    """Append `code` to the file of the batch job, if there is one; a task that cannot write leaves it to `srun`."""
    if path := environment.get(NOTED):
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(f"{code}\n")


def bad_input_in(error: Exception) -> str | None:
    """Return the line of the `InvalidInput` that `error` is or was raised from; None if there is none."""
    cause: BaseException | None = error
    while cause is not None:  # Hydra's instantiate wraps what a constructor raised
        if isinstance(cause, InvalidInput):
            return " ".join(str(cause).split())
        cause = cause.__cause__
    return None
