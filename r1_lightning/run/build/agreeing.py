"""What rank 0 does alone while the other processes of a run wait, and what they hear of it.

Rank 0 takes locks, makes folders and writes files; what it decided, all others follow. If it is refused (another run holds the
lock, the disk is full), all processes raise the same `InvalidInput`; if it is told to stop, the same `Stopped`. A wait that may
take hours, for a lock, is a chain of short ones, so that `trainer.timeout_s` bounds the silence of a process and not the patience
of the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import Processes

ALIVE_S = 5.0  # between two words of rank 0 that it still waits; well below any `trainer.timeout_s`
VALUE, ERROR, STOPPED, ALIVE = "value", "error", "stopped", "alive"


def by_main(processes: Processes, do: Callable[[Callable[[], None]], Any]) -> Any:
    """Call `do` in rank 0 and return its value in every process; an `InvalidInput` or `Stopped` of rank 0 is raised in all.

    `do` is given a function to call while it waits for something outside this run, as often as it likes. Values are pickled.
    """
    if processes.count == 1:
        return do(lambda: None)
    if not processes.is_main:
        nothing: tuple[str, Any] = (ALIVE, None)
        while True:
            kind, value = processes.from_main(lambda: nothing)
            if kind == ERROR:
                raise InvalidInput(value)
            if kind == STOPPED:
                raise Stopped(*value)
            if kind == VALUE:
                return value
    try:
        value = do(_Heartbeat(processes))
    except InvalidInput as refused:
        line = str(refused)
        processes.from_main(lambda: (ERROR, line))
        raise
    except Stopped as stopped:
        state = (stopped.reason, stopped.code, stopped.step)
        processes.from_main(lambda: (STOPPED, state))
        raise
    processes.from_main(lambda: (VALUE, value))
    return value


class _Heartbeat:
    """Tells the others that rank 0 still waits, at most every `ALIVE_S` seconds."""

    def __init__(self, processes: Processes) -> None:
        self.processes, self.said_s = processes, time.monotonic()

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s - self.said_s >= ALIVE_S:
            self.said_s = now_s
            self.processes.from_main(lambda: (ALIVE, None))
