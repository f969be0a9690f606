"""A pool of worker processes that compare answers and can be killed, so that a bad answer loses only its own verdict.

A computer algebra system may run for ever, use all memory or crash on model-written text. A timeout by signal works on the main
thread only, and a thread or an executor cannot be stopped at all: the verifier would be lost for the rest of the run. So each
worker is a process with an address-space limit and one task at a time. The parent checks the task's CPU time (so that a busy
machine causes no wrong verdict) and a wall-clock limit (for a process that sleeps). If either limit is passed, it kills the
worker with SIGKILL and starts another; the verdict is: not the same, "timed out". A worker that ends for another reason may have
been killed from outside (as by a system short of memory): its task goes to another one, and only if that ends, too, is the verdict
"the verifier crashed on it".

A verdict is a function of its two texts: no state passes between tasks, all workers have the same PYTHONHASHSEED, equal pairs are
compared once, and results are returned by position. Threads, order and number of workers change nothing unless a limit is reached.

Workers are freshly started programs, neither forks nor `multiprocessing` children, which would import the caller's main module and
with it torch. They start with the first task, and end at `close`, when the interpreter exits, or when their input closes because
this process died.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import r1_lightning
from r1_lightning.types.errors import require, require_int
from r1_lightning.types.stopping import STOP

TASKS_PER_WORKER = 5_000  # a worker is then replaced, so that leaks cannot accumulate
START_LIMIT_S = 120.0  # for importing sympy on a busy machine
CLOCK_FACTOR = 15.0  # the wall-clock limit as a multiple of the CPU limit: allows fifteen busy processes per core
POLL_S = 0.05
RESTARTS = 3  # of workers that are killed before they are ready, for one call
_READ_BYTES = 65_536
_MIB = 2**20
_Waiting = deque[tuple[int, tuple[str, str]]]  # tasks by number


@dataclass(frozen=True, slots=True)
class PoolVerdict:
    """Whether two answers are the same, the reason, and whether a time limit was reached.

    `score` is the result of a worker that scores instead of comparing (1.0 means the same); None otherwise.
    """

    same: bool
    why: str
    timed_out: bool = False
    score: float | None = None


TIMED_OUT = PoolVerdict(False, "timed out", timed_out=True)
CRASHED = PoolVerdict(False, "the verifier crashed on it")


@dataclass(eq=False)
class _Worker:
    """A worker process, its current task (None: idle or starting), and its CPU time and clock at the task's start."""

    process: subprocess.Popen[bytes]
    started_s: float
    ready: bool = False
    task: int | None = None
    pair: tuple[str, str] = ("", "")
    task_started_s: float = 0.0
    task_cpu_s: float = 0.0
    tasks_done: int = 0
    unread: bytearray = field(default_factory=bytearray)


class VerifierPool:
    """A pool of `workers` processes, by default one per processor; `compare_many` uses all of them at once.

    Args:
        workers: how many processes; None is one per processor this process may use.
        cpu_limit_s: CPU-time limit of one comparison in seconds.
        memory_limit_mb: address space of one worker in MiB; sympy itself takes about 100.
        program: the module that a worker runs; it serves tasks with `worker.serve`.
        poll: called while tasks are out, and may raise to end them.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpu_limit_s: float = 2.0,
        memory_limit_mb: int = 1024,
        program: str = "r1_lightning.rewards.verifiers.worker",
        poll: Callable[[], None] = STOP.poll,
    ) -> None:
        self.poll = poll
        self.workers = available_processors() if workers is None else workers
        require_int("workers", self.workers, 1)
        require(cpu_limit_s > 0, "cpu_limit_s", cpu_limit_s, "it must be positive")
        require_int("memory_limit_mb", memory_limit_mb, 256)
        self.cpu_limit_s = float(cpu_limit_s)
        self.memory_limit_mb = memory_limit_mb
        self.program = program
        self._restarts_left, self._asked_again = RESTARTS, set[int]()
        self._lock = threading.Lock()
        self._alive: list[_Worker] = []
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _end_all, self._alive, self._owner)

    def compare_many(self, pairs: Sequence[tuple[str, str]]) -> list[PoolVerdict]:
        """Return a verdict for each (given, reference), in order.

        Raises `RuntimeError` if a worker cannot start, because then no verdict is possible.
        """
        tasks = list(dict.fromkeys(pairs))
        verdicts: dict[int, PoolVerdict] = {}
        with self._lock, self._all_idle():
            for _ in range(min(self.workers, len(tasks)) - len(self._alive)):
                self._start()
            waiting = deque(enumerate(tasks))
            self._restarts_left, self._asked_again = RESTARTS, set()
            while len(verdicts) < len(tasks):
                self._give_out(waiting)
                self._collect(verdicts, waiting)
                self._kill_late(verdicts)
                self.poll()
        by_pair = {pair: verdicts[number] for number, pair in enumerate(tasks)}
        return [by_pair[pair] for pair in pairs]

    def process_ids(self) -> list[int]:
        """Return the process ids of the workers that are alive."""
        return [worker.process.pid for worker in self._alive if worker.process.poll() is None]

    def close(self) -> None:
        """Kill all workers; the next task starts new ones."""
        with self._lock:
            _end_all(self._alive, os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a (deep) copy start its own processes, because processes cannot be copied."""
        return VerifierPool, (self.workers, self.cpu_limit_s, self.memory_limit_mb, self.program)

    @contextmanager
    def _all_idle(self) -> Iterator[None]:
        """Kill busy workers when the block ends for any reason: a late result would be taken for another task's."""
        if self._owner != os.getpid():  # we are a fork: the workers belong to the parent
            self._alive.clear()
            self._owner = os.getpid()
            self._finalizer = weakref.finalize(self, _end_all, self._alive, self._owner)
        try:
            yield
        finally:
            for worker in [worker for worker in self._alive if worker.task is not None]:
                self._end(worker)

    def _start(self) -> None:
        folder = str(Path(r1_lightning.__file__).resolve().parents[1])
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        # -P: no file in the working directory may replace sympy.
        command = [sys.executable, "-P", "-m", self.program]
        process = subprocess.Popen(
            [*command, str(self.memory_limit_mb * _MIB), str(self.cpu_limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            process_group=0,  # a signal to our group (Ctrl-C, a batch system's) must not end it: its task would be judged wrong
        )
        self._alive.append(_Worker(process, time.monotonic()))

    def _end(self, worker: _Worker) -> None:
        self._alive.remove(worker)
        _kill(worker)

    def _give_out(self, waiting: _Waiting) -> None:
        """Give a waiting task to every worker that is ready and idle."""
        for worker in list(self._alive):
            if not worker.ready or worker.task is not None:
                continue
            if not waiting:
                return
            worker.task, worker.pair = waiting.popleft()
            worker.task_started_s, worker.task_cpu_s = time.monotonic(), cpu_seconds(worker.process.pid)
            # The worker reads the whole line before it does anything, so a line larger than the pipe's buffer does not block
            # either. `_collect` notices a worker that has just died.
            with suppress(BrokenPipeError):
                _write_all(_pipe(worker.process.stdin).fileno(), json.dumps(worker.pair).encode("ascii") + b"\n")

    def _collect(self, verdicts: dict[int, PoolVerdict], waiting: _Waiting) -> None:
        """Read the results that have arrived; wait a little if there are none."""
        with selectors.DefaultSelector() as selector:
            for worker in self._alive:
                selector.register(_pipe(worker.process.stdout), selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(POLL_S)]
        for worker in ready:
            data = os.read(_pipe(worker.process.stdout).fileno(), _READ_BYTES)
            worker.unread += data
            if not data:
                self._lost(worker, verdicts, waiting)
            elif worker.unread.endswith(b"\n"):
                self._answered(worker, verdicts)

    def _answered(self, worker: _Worker, verdicts: dict[int, PoolVerdict]) -> None:
        message = json.loads(worker.unread)
        worker.unread.clear()
        if not worker.ready:
            worker.ready = message == "ready"
            return
        if worker.task is not None:
            score = None if isinstance(message[0], bool) else float(message[0])
            verdicts[worker.task] = PoolVerdict(message[0] in (True, 1.0), str(message[1]), score=score)
        worker.task = None
        worker.tasks_done += 1
        if worker.tasks_done >= TASKS_PER_WORKER:
            self._end(worker)
            self._start()

    def _lost(self, worker: _Worker, verdicts: dict[int, PoolVerdict], waiting: _Waiting) -> None:
        """Replace a worker that has ended. Its task is asked again, once; then there is a verdict for it."""
        self._end(worker)
        if not worker.ready:
            self._restarts_left -= 1
            if worker.process.returncode >= 0 or self._restarts_left < 0:  # it ended by itself, or is always killed
                raise RuntimeError(
                    f"a verifier process ended with exit code {worker.process.returncode} before its first task; "
                    f"try: python -m {self.program} 1073741824 2"
                )
        elif worker.task is not None and worker.task in self._asked_again:
            verdicts[worker.task] = CRASHED
        elif worker.task is not None:
            self._asked_again.add(worker.task)
            waiting.appendleft((worker.task, worker.pair))
        self._start()

    def _kill_late(self, verdicts: dict[int, PoolVerdict]) -> None:
        now_s = time.monotonic()
        for worker in list(self._alive):
            if not worker.ready:
                if now_s - worker.started_s > START_LIMIT_S:
                    self._end(worker)
                    raise RuntimeError(f"a verifier process was not ready after {START_LIMIT_S:.0f} s")
            elif worker.task is not None:
                cpu_s = cpu_seconds(worker.process.pid) - worker.task_cpu_s
                if cpu_s > self.cpu_limit_s or now_s - worker.task_started_s > CLOCK_FACTOR * self.cpu_limit_s:
                    verdicts[worker.task] = TIMED_OUT
                    self._end(worker)
                    self._start()


def available_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_seconds(process_id: int) -> float:
    """Return the CPU time of a process, user and system; 0.0 if the system does not tell (no /proc) or it has ended."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # after the process name, which may contain anything
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "both are asked for when a worker starts"
    return pipe


def _write_all(descriptor: int, data: bytes) -> None:
    unsent = memoryview(data)
    while unsent:  # a signal may cut a write short
        unsent = unsent[os.write(descriptor, unsent) :]


def _kill(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.wait()
    for pipe in (worker.process.stdin, worker.process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()


def _end_all(workers: list[_Worker], owner: int) -> None:
    if owner == os.getpid():
        while workers:
            _kill(workers.pop())
