"""Monitors the processes of one case: reads their output until they end or reach a limit, then kills all of them.

Runs in the sandbox's init, which is trusted. The output is not trusted, and is passed on as text. Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

POLL_S = 0.001  # polling interval after a process has closed its pipes, which most do by ending
Reply = dict[str, Any]


def watch(pids: list[int], pipes: Mapping[str, int], request: Mapping[str, Any]) -> Reply:
    """Read `pipes` until the last of `pids` has ended or a limit is reached, then kill all processes.

    Returns the output, how the case ended, and the processes' total CPU time.
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
    """Return exit status and CPU seconds of the processes that have ended."""
    found = {}
    for pid in pids:
        gone, status, usage = os.wait4(pid, os.WNOHANG)
        if gone:
            found[pid] = (status, usage.ru_utime + usage.ru_stime)
    return found


def _why(status: int, cpu_s: float, request: Mapping[str, Any]) -> str:
    """Return "" for a normal end, "cpu" for the CPU limit, else a description."""
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGKILL) and cpu_s >= request["cpu_s"] - 0.1:
        return "cpu"
    return "" if code == 0 else f"status {code}" if code > 0 else f"signal {-code}"


def _kill(pids: list[int], ended: set[int]) -> float:
    """Kill all remaining processes; return the CPU seconds of those of `pids` that had not ended."""
    if os.getpid() == 1:  # we are init of our own namespace: -1 means every process in it except us
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    taken_s = 0.0
    for pid in pids:
        for kill in (os.killpg,) if pid in ended else (os.killpg, os.kill):  # it may not have its own process group yet
            with suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        if pid not in ended:
            usage = os.wait4(pid, 0)[2]
            taken_s += usage.ru_utime + usage.ru_stime
    return taken_s
