"""The parts of the check, one after the other within a time budget: each is measured, or has its reason for not being.

A part is begun only if the time left is its estimate or more, and may take `PATIENCE` times its estimate. One that hangs, crashes
or leaves the device unusable costs the others nothing but the start of a new process. The file is written anew after every row,
so that a run that is killed keeps what was measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.gpu.office import Broken, Greeting, Listed, Worker, WorkerProcess
from benchmarks.gpu.report import RecordFile, Row, Table, render

# Estimates are guesses: a part may take so many times as long, and some seconds more for whatever comes first (kernels to load).
PATIENCE, FIRST_S = 2.0, 40.0
# For a process to import torch and start CUDA, on a machine that has not read the files yet.
START_S = 180.0


class Check:
    """One run: a table, a file, and the worker. `connect` starts a worker; `is_patient` gives each part all the time left."""

    def __init__(
        self,
        connect: Callable[[], Worker],
        seconds: float,
        record: Callable[[Greeting], RecordFile | None],
        is_patient: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connect, self.clock, self.record, self.is_patient = connect, clock, record, is_patient
        self.end_s = clock() + seconds
        self.table = Table()
        self.hardware: dict[str, object] = {}
        self.file: RecordFile | None = None
        self.worker: Worker | None = None

    @property
    def left_s(self) -> float:
        return self.end_s - self.clock()

    def run(self, only: Sequence[str]) -> None:
        """Measure the parts named in `only`; `table` and `file` hold what came of it."""
        try:
            greeting = self._start()
            self.hardware, self.file = greeting.hardware, self.record(greeting)
            for number, part in enumerate(greeting.parts):
                if part.name in only:
                    self._part(number, part, greeting.cannot)
        except Broken as error:
            self._take(
                Row("start", "every part", not_run=f"failed: the measuring process did not start: {error}", failed=True)
            )
        finally:
            if self.worker is not None:
                self.worker.close()

    def _part(self, number: int, part: Listed, cannot: str) -> None:
        if cannot or self.left_s < part.estimate_s:
            short = f"{max(0.0, self.left_s):.0f} s are left of --seconds, and it needs about {part.estimate_s:.0f}"
            self._take(Row(part.name, part.work, not_run=cannot or short))
            return
        try:
            if self.worker is None:
                self._start()
            assert self.worker is not None
            limit_s = self.left_s if self.is_patient else min(self.left_s, PATIENCE * part.estimate_s + FIRST_S)
            self.worker.measure(number, limit_s, self._take)
        except Broken as error:
            self.worker = None  # the next part starts another
            if str(error):
                self._take(Row(part.name, part.work, not_run=str(error), failed=str(error).startswith("failed")))

    def _start(self) -> Greeting:
        self.worker = self.connect()
        try:
            return self.worker.greeting(min(START_S, max(0.0, self.left_s)))
        except Broken:
            self.worker = None
            raise

    def _take(self, row: Row) -> None:
        self.table.add(row)
        if self.file is not None:
            self.file.write(self.table.rows)


def check(only: Sequence[str], is_rehearsal: bool, out: Path | None, commit: str | None, seconds: float) -> int:
    """Run the parts named in `only`, print the table, keep what ran on a GPU below `out`; returns the exit code."""

    def record(greeting: Greeting) -> RecordFile | None:
        if out is None or is_rehearsal or greeting.cannot:
            return None
        from r1_lightning.artefacts.lineage import (
            commit as commit_here,  # it imports torch, as the worker does meanwhile
        )

        return RecordFile(out, greeting.hardware, commit or commit_here())

    one = Check(lambda: WorkerProcess.of("tiny" if is_rehearsal else "full"), seconds, record, is_rehearsal)
    one.run(only)
    print(f"\n{', '.join(f'{name}: {value}' for name, value in one.hardware.items())}\n\n{render(one.table.rows)}")
    if is_rehearsal:
        print("\nA rehearsal: these numbers mean nothing.")
    elif out is not None:
        path = one.file and one.file.path
        print(f"\nwritten: {path}" if path else "\nnothing ran on a GPU, so nothing is written")
    return int(any(row.failed for row in one.table.rows))
