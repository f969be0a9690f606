"""Worker processes that compare answers, and that can be killed: one answer can cost its own verdict and nothing else.

A computer algebra system given text that a model wrote may run for ever, take all memory, or crash. A timeout by signal works
on the main thread only, and a thread or an executor cannot be stopped at all: the verifier would be lost for the rest of the
run. So each worker is a process with an address-space limit that has one task at a time. Its parent watches the CPU time that
the task has taken (so that a busy machine makes no verdict wrong) with a clock behind it (for a process that sleeps), kills it by
SIGKILL when either limit is passed, and starts another. Verdict: not the same, "timed out".

A verdict is a function of its two texts: nothing passes between tasks, workers hash alike (PYTHONHASHSEED), equal pairs are asked
once, and answers come back by position. Thread, order and number of workers change nothing unless a limit is met.

Workers are programs started afresh, not forks and not `multiprocessing` children: those would import the caller's main
module, and with it torch. They begin when the first task comes, end at `close`, at the end of the interpreter, or when
their input closes because this process died.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import r1_lightning
from r1_lightning.types.errors import require, require_int

TASKS_PER_WORKER = 5_000  # then another takes its place, so that nothing can pile up in one
START_LIMIT_S = 120.0  # for importing sympy on a machine that is busy
CLOCK_FACTOR = 15.0  # so many times the CPU limit may pass on the clock: fifteen busy processes per core
POLL_S = 0.05
_READ_BYTES = 65_536
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class PoolVerdict:
    """Whether two answers are the same, why, and whether the reason is that a limit of time was met.

    `score`: what a worker gave that scores instead of comparing; then 1.0 is the same. None where there is no score.
    """

    same: bool
    why: str
    timed_out: bool = False
    score: float | None = None


TIMED_OUT = PoolVerdict(False, "timed out", timed_out=True)
CRASHED = PoolVerdict(False, "the verifier crashed on it")


@dataclass(eq=False)
class _Worker:
    """A process, the task it has (None: idle or starting), and what that task began with."""

    process: subprocess.Popen[bytes]
    started_s: float
    ready: bool = False
    task: int | None = None
    task_started_s: float = 0.0
    task_cpu_s: float = 0.0
    tasks_done: int = 0
    unread: bytearray = field(default_factory=bytearray)


class VerifierPool:
    """`workers` processes, as many as there are processors by default; `compare_many` uses all of them at once.

    Args:
        workers: how many processes; None is one per processor this process may use.
        cpu_limit_s: seconds of CPU time that one comparison may take.
        memory_limit_mb: address space of one worker in MiB; sympy itself takes about 100.
        program: the module that a worker runs; it serves tasks by `worker.serve`.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpu_limit_s: float = 2.0,
        memory_limit_mb: int = 1024,
        program: str = "r1_lightning.rewards.verifiers.worker",
    ) -> None:
        self.workers = available_processors() if workers is None else workers
        require_int("workers", self.workers, 1)
        require(cpu_limit_s > 0, "cpu_limit_s", cpu_limit_s, "it must be positive")
        require_int("memory_limit_mb", memory_limit_mb, 256)
        self.cpu_limit_s = float(cpu_limit_s)
        self.memory_limit_mb = memory_limit_mb
        self.program = program
        self._lock = threading.Lock()
        self._alive: list[_Worker] = []
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _end_all, self._alive, self._owner)

    def compare_many(self, pairs: Sequence[tuple[str, str]]) -> list[PoolVerdict]:
        """A verdict for each (given, reference), in their order.

        Raises `RuntimeError` where a worker cannot start at all: then no verdict would mean anything.
        """
        tasks = list(dict.fromkeys(pairs))
        verdicts: dict[int, PoolVerdict] = {}
        with self._lock, self._all_idle():
            for _ in range(min(self.workers, len(tasks)) - len(self._alive)):
                self._start()
            waiting = iter(enumerate(tasks))
            while len(verdicts) < len(tasks):
                self._give_out(waiting)
                self._collect(verdicts)
                self._kill_late(verdicts)
        by_pair = {pair: verdicts[number] for number, pair in enumerate(tasks)}
        return [by_pair[pair] for pair in pairs]

    def process_ids(self) -> list[int]:
        """The workers alive now."""
        return [worker.process.pid for worker in self._alive if worker.process.poll() is None]

    def close(self) -> None:
        """Kill all workers. The next task starts others."""
        with self._lock:
            _end_all(self._alive, os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        """A deep copy has processes of its own: they cannot be copied."""
        return VerifierPool, (self.workers, self.cpu_limit_s, self.memory_limit_mb, self.program)

    @contextmanager
    def _all_idle(self) -> Iterator[None]:
        """Leaves no worker with a task, whatever ends the block: an answer that comes late would be another's."""
        if self._owner != os.getpid():  # a fork: the workers are the parent's
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
        # -P: no file of the working directory may take the place of sympy.
        command = [sys.executable, "-P", "-m", self.program]
        process = subprocess.Popen(
            [*command, str(self.memory_limit_mb * _MIB), str(self.cpu_limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        )
        self._alive.append(_Worker(process, time.monotonic()))

    def _end(self, worker: _Worker) -> None:
        self._alive.remove(worker)
        _kill(worker)

    def _give_out(self, waiting: Iterator[tuple[int, tuple[str, str]]]) -> None:
        """A task to every worker that is ready and has none, as long as there are any."""
        for worker in list(self._alive):
            if not worker.ready or worker.task is not None:
                continue
            following = next(waiting, None)
            if following is None:
                return
            worker.task, pair = following
            worker.task_started_s, worker.task_cpu_s = time.monotonic(), cpu_seconds(worker.process.pid)
            # The worker reads to the end of the line before it does anything, so that more than a pipe holds does not block
            # either. A worker that has just died is noticed when its answer is read.
            with suppress(BrokenPipeError):
                _write_all(_pipe(worker.process.stdin).fileno(), json.dumps(pair).encode("ascii") + b"\n")

    def _collect(self, verdicts: dict[int, PoolVerdict]) -> None:
        """Reads what has been answered, waiting a little if nothing has."""
        with selectors.DefaultSelector() as selector:
            for worker in self._alive:
                selector.register(_pipe(worker.process.stdout), selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(POLL_S)]
        for worker in ready:
            data = os.read(_pipe(worker.process.stdout).fileno(), _READ_BYTES)
            worker.unread += data
            if not data:
                self._lost(worker, verdicts)
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

    def _lost(self, worker: _Worker, verdicts: dict[int, PoolVerdict]) -> None:
        """A worker that is no more: its task is a verdict, and another worker takes its place."""
        self._end(worker)
        if not worker.ready:
            raise RuntimeError(
                f"a verifier process ended with exit code {worker.process.returncode} before its first task; "
                f"try: python -m {self.program} 1073741824 2"
            )
        if worker.task is not None:
            verdicts[worker.task] = CRASHED
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
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_seconds(process_id: int) -> float:
    """CPU time that a process has taken, user and system; 0.0 where the system does not say (no /proc), or it is gone."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # after the name, which may hold anything
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
