"""Commands that are killed by SIGKILL at a moment and started again."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LIMIT_S = 240.0  # for one start of a command
LONGEST_PAUSE_S = 0.15  # between a moment and the kill: some ten steps


class Killed:
    """What `start` begins below `root`, killed `delay_s` after this very start has written a file of a pattern."""

    def __init__(self, root: Path, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.root, self.start = root, start

    def until(self, pattern: str, delay_s: float) -> bool:
        """Start, wait, kill. False where the command ended before."""
        started_s = time.time()
        process = self.start()
        deadline = time.monotonic() + LIMIT_S
        try:
            while not self._has_come(pattern, started_s) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(delay_s)
            was_running = process.poll() is None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert was_running or process.returncode == 0
        return was_running

    def _has_come(self, pattern: str, started_s: float) -> bool:
        """Whether this start has written the moment's file: an earlier one's does not count."""
        try:
            return any(path.stat().st_mtime >= started_s for path in self.root.glob(pattern))
        except FileNotFoundError:  # replaced between the two looks
            return False

    def finish(self) -> None:
        """Start, and wait for a good end."""
        assert self.start().wait(timeout=LIMIT_S) == 0


def random_pauses(seed: int) -> Iterator[float]:
    rng = random.Random(seed)
    return (rng.uniform(0.0, LONGEST_PAUSE_S) for _ in itertools.count())
