"""Holds the worker process: starts it, asks it for parts, takes their rows, and ends it when a part takes too long."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from benchmarks.gpu.report import Row

ROOT = Path(__file__).resolve().parents[2]
# cuBLAS reads this when CUDA starts: workspaces of fixed sizes, so that the order of its sums is fixed.
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
STOP_S = 10.0


class Listed(NamedTuple):
    """A part as the worker names it."""

    name: str
    work: str
    estimate_s: float


class Greeting(NamedTuple):
    """What the worker can do. `cannot` is a reason for which no part can run, "" where they can."""

    parts: list[Listed]
    hardware: dict[str, Any]
    cannot: str


class Broken(Exception):
    """The worker is gone, or was ended; the message says why. A new one has to be started."""


class Worker(Protocol):
    """Measures parts, one at a time."""

    def greeting(self, limit_s: float) -> Greeting: ...

    def measure(self, number: int, limit_s: float, take: Callable[[Row], None]) -> None:
        """Give the rows of part `number` to `take` as they come. Raises `Broken` after `limit_s`, or if the worker is unusable."""
        ...

    def close(self) -> None: ...


class WorkerProcess:
    """A `Worker` that is a process of its own, so that whatever hangs in it can be ended."""

    def __init__(self, command: list[str]) -> None:
        """`command` is extended by the number of the descriptor for answers."""
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [*command, str(writing)],
            stdin=subprocess.PIPE,
            pass_fds=(writing,),
            cwd=ROOT,
            env={**WORKSPACE, **os.environ},
            text=True,
        )
        os.close(writing)
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        answers = os.fdopen(reading, encoding="utf-8")
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    @classmethod
    def of(cls, plan: str) -> WorkerProcess:
        return cls([sys.executable, "-m", "benchmarks.gpu.worker", plan])

    def greeting(self, limit_s: float) -> Greeting:
        fields = self._next(time.monotonic() + limit_s, limit_s)["greeting"]
        return Greeting([Listed(**part) for part in fields["parts"]], fields["hardware"], fields["cannot"])

    def measure(self, number: int, limit_s: float, take: Callable[[Row], None]) -> None:
        end_s = time.monotonic() + limit_s
        requests: IO[str] = self.process.stdin  # type: ignore[assignment]
        try:
            requests.write(f"{number}\n")
            requests.flush()
        except (OSError, ValueError) as error:  # ValueError: this side has closed it
            raise Broken("the process that measures has ended") from error
        while True:
            message = self._next(end_s, limit_s)
            if "done" in message:
                if not message["usable"]:
                    self._end()
                    raise Broken("")  # the part's own row says what happened
                return
            take(Row(**message["row"]))

    def close(self) -> None:
        """End the process; one that waits for work ends by itself."""
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._end()

    def _next(self, end_s: float, limit_s: float) -> dict[str, Any]:
        try:
            message = self.messages.get(timeout=max(0.0, end_s - time.monotonic()))
        except queue.Empty:
            self._end()
            raise Broken(f"stopped after {limit_s:.0f} s") from None
        if message is None:
            raise Broken(f"failed: the process that measures ended with code {self.process.wait()}")
        return message

    def _listen(self, answers: IO[str]) -> None:
        with answers:
            for line in answers:
                self.messages.put(json.loads(line))
        self.messages.put(None)

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()
