"""`r1` in a job of a test: stands still at a moment that the test has drawn, until it is told to stop, and notes what it hears.

As a program (`python -m tests.support.slurm.preempted R1.PY ARGUMENT ...`) it is the interpreter of a job
(`launcher.python`). The folder R1_MOMENTS holds

    moment.json     where the next attempt stands still (`Moment`)
    events.jsonl    what the tasks note, a line each: "begun", "reached" (the moment), "heard" (a signal, and where), "left"

The clock is time.monotonic(), which all processes of a machine share. The package's own handler works after the note; a task that
stands still polls nothing and raises nothing itself.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import itertools
import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from r1_lightning.types import stopping

FOLDER = "R1_MOMENTS"
STILL_S = 120.0  # a task stands still for so long at most
OURS = ("r1_lightning.", "torch._inductor.")  # modules whose functions say where a task is


@dataclass(frozen=True)
class Moment:
    """Call `call` of `function` (MODULE:NAME) that comes from a function whose name begins with `within`, in task `task`.

    The test strikes `pause_s` seconds after it. An empty `function` is no place, but the task's beginning; unless `still`, the task
    works on meanwhile.
    """

    number: int
    name: str
    function: str
    within: str
    call: int
    task: int
    pause_s: float = 0.0
    still: bool = True

    def write(self, folder: Path) -> None:
        waiting = folder / ".moment.json"
        waiting.write_text(json.dumps(asdict(self)), encoding="utf-8")
        waiting.replace(folder / "moment.json")


def note(event: str, **more: Any) -> None:
    """Append a line to the events; also from a signal's handler."""
    found = os.environ
    who = {"task": int(found["SLURM_PROCID"]), "job": found["SLURM_JOB_ID"], "attempt": attempt()}
    line = json.dumps({"event": event, "clock_s": time.monotonic(), **who, **more})
    descriptor = os.open(Path(found[FOLDER]) / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def attempt() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1


def events(folder: Path) -> list[dict[str, Any]]:
    """What the tasks have noted so far; the test reads it."""
    path = folder / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def stack_of(frame: FrameType | None) -> list[str]:
    """The functions of the package, and of the compiler, that are at work, MODULE:NAME, the innermost first."""
    found = []
    while frame is not None:
        name = f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_qualname}"
        if name.startswith(OURS) and not name.startswith("r1_lightning.types.stopping:"):
            found.append(name)
        frame = frame.f_back
    return found


def stand_still(moment: Moment) -> Callable[[], None]:
    """A function that counts its calls from within `moment.within` and, at the moment, returns when a signal has come."""
    calls = itertools.count(1)

    def here() -> None:
        stack = stack_of(sys._getframe(1))
        if not any(name.startswith(moment.within) for name in stack) or next(calls) != moment.call:
            return
        note("reached", number=moment.number, stack=stack)
        end_s = time.monotonic() + (STILL_S if moment.still else 0.0)
        while stopping.STOP.asked is None and time.monotonic() < end_s:
            time.sleep(0.005)

    return here


class Changing(importlib.abc.MetaPathFinder):
    """Puts `first` before a function of a module when that is imported, so that torch is imported when it always is."""

    def __init__(self, function: str, first: Callable[[], None]) -> None:
        self.module, _, self.name = function.partition(":")
        self.first = first

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == self.module else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _change(self, owner: Any) -> None:
        *path, last = self.name.split(".")
        for part in path:
            owner = getattr(owner, part)
        original = getattr(owner, last)

        def changed(*given: Any, **named: Any) -> Any:
            self.first()
            return original(*given, **named)

        setattr(owner, last, changed)


def main(words: Sequence[str]) -> None:
    """Run the program `words[0]` with the rest as its arguments."""
    moment = Moment(**json.loads((Path(os.environ[FOLDER]) / "moment.json").read_text(encoding="utf-8")))
    hear = stopping.Stop.hear

    def heard(self: stopping.Stop, number: int, frame: FrameType | None = None) -> None:
        note("heard", signal=number, stack=stack_of(frame))
        hear(self, number, frame)

    stopping.Stop.hear = heard  # type: ignore[method-assign]
    if moment.function and moment.task == int(os.environ["SLURM_PROCID"]):
        sys.meta_path.insert(0, Changing(moment.function, stand_still(moment)))
    note("begun", number=moment.number)
    sys.argv = list(words)
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        note("left")


if __name__ == "__main__":
    main(sys.argv[1:])
