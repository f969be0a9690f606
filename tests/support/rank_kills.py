"""The ranks of one command, forked from the program of `stage_kills`: one or all are killed, or one is stopped, at a moment.

The product's own starter (`run/config/starting.py`) starts and watches them; only its `subprocess.Popen` is a fork here, so that a
rank imports nothing. Or nobody watches them, as the tasks of `srun` if it does not end the others.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from r1_lightning.run.config import starting
from tests.support.launched import children_of, step_of, task_of
from tests.support.stage_kills import Fault, command, end_with, moments, note_strike, prepare

KILLS = ("kill 0", "kill 1", "kill all", "kill starter")
OF_MAIN = ("writing", "syncing", "renaming")  # what rank 0 alone does, unless the others have shards to write


def faults(seed: str, samples: bool, sharded: bool) -> Iterator[Fault]:
    """Kills drawn from `seed`, without end: at a moment of one rank, that one, the other one, both or their starter are killed."""
    rng = random.Random(f"ranks {seed}")
    for moment in moments(seed, samples, sharded):
        rank, name = rng.randrange(2), moment.split()[1]
        if name == "writing" or (name in OF_MAIN and not sharded):
            rank = 0
        yield Fault(moment, rank, rng.choice(KILLS))


def one_fault(seed: str, samples: bool, verb: str, watched: bool) -> Fault:
    """The `verb` ("kill", "stop") of one rank at a moment of its own, drawn from `seed`."""
    fault = next(faults(seed, samples, sharded=False))
    return fault._replace(action=f"{verb} {fault.rank}", watched=watched)


def start_ranks(count: int, arguments: Sequence[str], fault: Fault | None) -> int:
    """Be the command that starts `count` ranks, to which `fault` happens; returns its exit code."""
    popen = partial(Rank, arguments, fault, count)
    if fault is not None and not fault.watched:
        step = step_of(count)
        ranks = [popen(env={**os.environ, **step, **task_of(rank)}) for rank in range(count)]
        return max(rank.wait() for rank in ranks)
    with mock.patch.object(starting, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=None)):
        return starting.start(count, arguments, dict(os.environ))


class Rank:
    """A rank, forked from this process: what `starting` asks of a `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        fault: Fault | None,
        count: int,
        _: Sequence[str] = (),
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        **others: Any,
    ) -> None:
        self.returncode: int | None = None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            end_with(partial(_be_rank, arguments, fault, count, env, pass_fds))

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self) -> int:
        code = self._waited(0)
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _waited(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _be_rank(
    arguments: Sequence[str], fault: Fault | None, count: int, environment: Mapping[str, str], kept: Sequence[int]
) -> int:
    """What a new program would start with: a session, an environment, files and signal handlers of its own."""
    os.setsid()
    for number in starting.ASKED:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):  # that of the listing itself
                os.close(int(name))
    os.environ.clear()
    os.environ.update(environment)
    rank = int(environment.get("RANK", environment.get("SLURM_PROCID", "0")))
    if fault is not None and rank == fault.rank:
        prepare(fault.moment, partial(_strike, fault.action, count))
    return command(arguments)


def _strike(action: str, count: int) -> None:
    """Do `action`, in a rank; where it is this rank's own end, after that of the others."""
    starter = os.getppid()
    while len(ranks := children_of(starter)) < count:  # a clock may be faster than the starter
        time.sleep(0.001)
    verb, whom = action.split()
    targets = {"all": ranks, "starter": [starter]}.get(whom) or [ranks[int(whom)]]
    note_strike()
    for pid in sorted(targets, key=lambda pid: pid == os.getpid()):
        os.kill(pid, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)
