"""Commands that are killed by SIGKILL at a moment inside a step, a rollout or a checkpoint, many times in seconds.

As a program (`python -m tests.support.stage_kills`) it imports what `scripts/train.py` needs once, and then forks a process for
every line of its input, a JSON list: the command's arguments, a fault or null, the file for its output. It answers with a
line of the process's exit code (-9: killed) and of the seconds from the fault to the end of the last process. A process starts in
a second that way, and not in ten. A command for several processes gets its ranks as forks, too (`rank_kills`).

A moment is a name and a number: "4 backward" means, between the fourth forward pass of this process and its backward pass.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest import mock

from tests.support.commands import CONFIGS, ROOT, environment
from tests.support.launched import below

LIMIT_S = 240.0  # for one start of a command
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h: processes whose parent is gone become this one's
STRUCK_S = mmap.mmap(-1, 8)  # shared by all forks: when the fault came, by the clock of time.monotonic
# The largest number of each: about what a process reaches in five optimizer steps, so that a run of twelve is killed a few times.
MOMENTS = {
    "backward": 5,  # of the forward passes: the process dies before the backward pass of it
    "optimizer": 5,  # of the optimizer steps: gradients are there, the weights have not moved
    "decoding": 30,  # of the sampler's decode steps
    "writing": 100,  # of the pieces of checkpoints that are written
    "storing": 300,  # of the tensors that are written to files of weights and shards
    "syncing": 8,  # of the files and folders that are synced to disk
    "renaming": 8,  # of the files that get their names; half of the time after the renaming
    "clock": 2000,  # milliseconds from the start of the process
}


def moments(seed: int | str, samples: bool, stores: bool = False) -> Iterator[str]:
    """Moments drawn from `seed`, without end: "decoding" only in a stage that `samples`, "storing" if it `stores` shards."""
    rng = random.Random(seed)
    left_out = [name for name, wanted in (("decoding", samples), ("storing", stores)) if not wanted]
    names = [name for name in MOMENTS if name not in left_out]
    while True:
        name = rng.choice(names)
        yield f"{rng.randint(1, MOMENTS[name])} {name}"


class Fault(NamedTuple):
    """What happens in a run of several processes: `action` ("kill 1", "kill all", "stop 0") at `moment` of rank `rank`.

    Not `watched`: nobody ends the other ranks.
    """

    moment: str
    rank: int
    action: str
    watched: bool = True

    def __str__(self) -> str:
        return f"{self.action} at {self.moment} of {self.rank}"


class Ended(NamedTuple):
    """The end of one start: exit code, seconds from the fault to the end of the last process, and what was printed."""

    code: int
    late_s: float
    text: str


class Starter:
    """The program of this module, and the processes that it forks."""

    def __init__(self) -> None:
        surroundings = {**environment(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.support.stage_kills"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=surroundings, start_new_session=True, **pipes)

    def __call__(self, arguments: Sequence[str], fault: str | Fault | None, output: Path) -> Ended:
        """Run `scripts/train.py` with `arguments`; a moment kills the command's only process. Prints go to the end of `output`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        before = output.stat().st_size if output.exists() else 0
        limit = threading.Timer(LIMIT_S, self.close)  # whatever hangs ends by that
        limit.start()
        try:
            print(json.dumps([list(arguments), fault, str(output)]), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline().split()
        finally:
            limit.cancel()
        text = output.read_bytes()[before:].decode(errors="replace")
        assert answer, f"not over after {LIMIT_S:g} s ({fault}):\n{text[-3000:]}"
        return Ended(int(answer[0]), float(answer[1]), text)

    def close(self) -> None:
        for pid in [*below(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()  # closes the pipes


def die() -> None:
    note_strike()
    os.kill(os.getpid(), signal.SIGKILL)


def note_strike() -> None:
    STRUCK_S[:] = struct.pack("d", time.monotonic())


def striking(
    function: Callable[..., Any], number: int, after: bool = False, strike: Callable[[], None] = die
) -> Callable[..., Any]:
    """`function`, but call `number` of it strikes (kills the process, as a rule), before or `after` its work."""
    calls = itertools.count(1)

    def called(*arguments: Any, **keywords: Any) -> Any:
        is_last = next(calls) == number
        if is_last and not after:
            strike()
        result = function(*arguments, **keywords)
        if is_last and after:
            strike()
        return result

    return called


def prepare(moment: str, strike: Callable[[], None] = die) -> None:
    """Make this process `strike` at `moment`."""
    from r1_lightning.artefacts import checkpoint_file, files, tensor_file
    from r1_lightning.model.backbone import DeepSeekBackbone
    from r1_lightning.stages.base import StageModule

    count, name = moment.split()
    number = int(count)
    if name == "clock":
        threading.Timer(number / 1000, strike).start()
        return
    place, attribute = {
        "backward": (StageModule, "on_before_backward"),
        "optimizer": (StageModule, "configure_gradient_clipping"),
        "decoding": (DeepSeekBackbone, "step"),
        "writing": (checkpoint_file._Sink, "write"),
        "storing": (tensor_file, "_pieces"),
        "syncing": (files, "_fsync"),
        "renaming": (os, "replace"),
    }[name]
    changed = striking(getattr(place, attribute), number, name == "renaming" and number % 2 == 0, strike)
    mock.patch.object(place, attribute, changed).start()


def command(arguments: Sequence[str]) -> int:
    """Be `scripts/train.py`."""
    from r1_lightning.run import cli
    from r1_lightning.run.stages.kinds import run_stage

    sys.argv = ["train.py", *arguments]
    return cli.main(run_stage, CONFIGS)


def work(arguments: list[str], fault: Any, output: str) -> int:
    """Be the command, or what starts its ranks: the output goes to the end of a file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    if count := [word for word in arguments if word.startswith("trainer.devices=")]:
        from tests.support.rank_kills import start_ranks

        return start_ranks(int(count[0].partition("=")[2]), arguments, Fault(*fault) if fault else None)
    if fault is not None:
        prepare(fault)
    return command(arguments)


def end_with(function: Callable[[], int]) -> NoReturn:
    """End this process with the code that `function` returns, without the last acts of the program that it was forked from."""
    code = 1
    try:
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    import r1_lightning.run.stages.kinds  # noqa: F401  # the slow imports, before the forks

    assert ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) == 0
    for line in sys.stdin:
        given = json.loads(line)
        STRUCK_S[:] = struct.pack("d", float("nan"))
        child = os.fork()
        if child == 0:
            end_with(lambda given=given: work(*given))  # type: ignore[misc]
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(ChildProcessError):
            while True:
                os.wait()  # what a killed process has left behind
        print(code, time.monotonic() - struct.unpack("d", STRUCK_S[:])[0], flush=True)


if __name__ == "__main__":
    from tests.support import stage_kills  # the one that `rank_kills` imports: `STRUCK_S` is one

    stage_kills.main()
