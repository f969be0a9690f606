"""Watching the processes of one case: read what they write until they end or meet a limit; then kill them all.

Runs in the sandbox's init, which is trusted; what it reads is not, and is passed on as text. Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

POLL_S = 0.001  # between two looks at a process that has closed its pipes, which most do by ending
Reply = dict[str, Any]


def watch(pids: list[int], pipes: Mapping[str, int], request: Mapping[str, Any]) -> Reply:
    """Read `pipes` until the last of `pids` has ended or met a limit, kill them all, and say what was read, how it ended, and
    what CPU time they took together.
    """
    deadline_s = time.monotonic() + request["clock_s"]
    read = {name: bytearray() for name in pipes}
    names = {fd: name for name, fd in pipes.items()}
    poll = select.poll()
    for fd in names:
        poll.register(fd, select.POLLIN)
    limit = ""
    ended: dict[int, tuple[int, float]] = {}
    while not limit and pids[-1] not in ended:
        wait_s = deadline_s - time.monotonic()
        limit = "clock" if wait_s <= 0 else ""
        if names:
            for fd, _ in poll.poll(max(wait_s, 0) * 1000):
                piece = os.read(fd, 65_536)
                read[names[fd]] += piece
                limit = "output" if sum(map(len, read.values())) > request["output_bytes"] else limit
                if not piece:
                    poll.unregister(fd)
                    del names[fd]
        else:
            time.sleep(POLL_S)
        if not names:
            ended |= _ended([pid for pid in pids if pid not in ended])
    ended |= _ended([pid for pid in pids if pid not in ended])
    killed_s = _kill(pids, set(ended))
    for fd in pipes.values():
        os.close(fd)
    return {
        "ended": limit or next((why for pid in pids if (why := _why(*ended.get(pid, (0, 0.0)), request))), ""),
        "cpu_s": killed_s + sum(cpu_s for _, cpu_s in ended.values()),
        **{name: bytes(content).decode("utf-8", "replace") for name, content in read.items()},
    }


def _ended(pids: list[int]) -> dict[int, tuple[int, float]]:
    """Status and CPU seconds of those that are no more."""
    found = {}
    for pid in pids:
        gone, status, usage = os.wait4(pid, os.WNOHANG)
        if gone:
            found[pid] = (status, usage.ru_utime + usage.ru_stime)
    return found


def _why(status: int, cpu_s: float, request: Mapping[str, Any]) -> str:
    """Nothing for an end in order, "cpu", or words."""
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGKILL) and cpu_s >= request["cpu_s"] - 0.1:
        return "cpu"
    return "" if code == 0 else f"status {code}" if code > 0 else f"signal {-code}"


def _kill(pids: list[int], ended: set[int]) -> float:
    """Kill all that is left; the CPU seconds that those of `pids` had taken which had not ended."""
    if os.getpid() == 1:  # we are init of a namespace of our own, and this is everything in it but us
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    taken_s = 0.0
    for pid in pids:
        for kill in (os.killpg,) if pid in ended else (os.killpg, os.kill):  # not yet in a group of its own
            with suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        if pid not in ended:
            usage = os.wait4(pid, 0)[2]
            taken_s += usage.ru_utime + usage.ru_stime
    return taken_s
