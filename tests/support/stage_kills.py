"""Commands that are killed by SIGKILL at a moment inside a step, a rollout or a checkpoint, many times in seconds.

As a program (`python -m tests.support.stage_kills`) it imports what `scripts/train.py` needs once, and then forks a process for
every line of its input, a JSON list: the command's arguments, a moment or null, the file for its output. It answers with a
line of the process's exit code (-9: killed). A process starts in a second that way, and not in ten.

A moment is a name and a number: "4 backward" means, between the fourth forward pass of this process and its backward pass.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.commands import CONFIGS, ROOT, environment

LIMIT_S = 240.0  # for one start of a command
# The largest number of each: about what a process reaches in five optimizer steps, so that a run of twelve is killed a few times.
MOMENTS = {
    "backward": 5,  # of the forward passes: the process dies before the backward pass of it
    "optimizer": 5,  # of the optimizer steps: gradients are there, the weights have not moved
    "decoding": 30,  # of the sampler's decode steps
    "writing": 100,  # of the pieces of checkpoints that are written
    "syncing": 8,  # of the files and folders that are synced to disk
    "renaming": 8,  # of the files that get their names; half of the time after the renaming
    "clock": 2000,  # milliseconds from the start of the process
}


def moments(seed: int, samples: bool) -> Iterator[str]:
    """Moments drawn from `seed`, without end; "decoding" only in a stage that samples."""
    rng = random.Random(seed)
    names = [name for name in MOMENTS if samples or name != "decoding"]
    while True:
        name = rng.choice(names)
        yield f"{rng.randint(1, MOMENTS[name])} {name}"


class Starter:
    """The program of this module, and the processes that it forks."""

    def __init__(self) -> None:
        surroundings = {**environment(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.support.stage_kills"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=surroundings, start_new_session=True, **pipes)

    def __call__(self, arguments: Sequence[str], moment: str | None, output: Path) -> int:
        """Run `scripts/train.py` with `arguments`, and return its exit code; -9 if it was killed at `moment`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        limit = threading.Timer(LIMIT_S, self.close)  # whatever hangs ends by that
        limit.start()
        try:
            print(json.dumps([list(arguments), moment, str(output)]), file=self.process.stdin, flush=True)
            return int(self.process.stdout.readline())
        finally:
            limit.cancel()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any], number: int, after: bool = False) -> Callable[..., Any]:
    """`function`, but call `number` of it kills the process, before or `after` its work."""
    calls = itertools.count(1)

    def called(*arguments: Any, **keywords: Any) -> Any:
        is_last = next(calls) == number
        if is_last and not after:
            die()
        result = function(*arguments, **keywords)
        if is_last:
            die()
        return result

    return called


def prepare_to_die(moment: str) -> None:
    """Make this process kill itself at `moment`."""
    from r1_lightning.artefacts import checkpoint_file, files
    from r1_lightning.model.backbone import DeepSeekBackbone
    from r1_lightning.stages.base import StageModule

    count, name = moment.split()
    number = int(count)
    if name == "clock":
        threading.Timer(number / 1000, die).start()
        return
    place, attribute = {
        "backward": (StageModule, "on_before_backward"),
        "optimizer": (StageModule, "configure_gradient_clipping"),
        "decoding": (DeepSeekBackbone, "step"),
        "writing": (checkpoint_file._Sink, "write"),
        "syncing": (files, "_fsync"),
        "renaming": (os, "replace"),
    }[name]
    changed = dying(getattr(place, attribute), number, after=name == "renaming" and number % 2 == 0)
    mock.patch.object(place, attribute, changed).start()


def work(arguments: list[str], moment: str | None, output: str) -> int:
    """Be the command: its output goes to the end of a file."""
    from r1_lightning.run import cli
    from r1_lightning.run.stages.kinds import run_stage

    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    sys.argv = ["train.py", *arguments]
    if moment is not None:
        prepare_to_die(moment)
    return cli.main(run_stage, CONFIGS)


def main() -> None:
    import r1_lightning.run.stages.kinds  # noqa: F401  # the slow imports, before the forks

    for line in sys.stdin:
        arguments, moment, output = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = work(arguments, moment, output)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
