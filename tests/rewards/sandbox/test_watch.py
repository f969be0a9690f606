"""Monitoring processes, here without a sandbox: their output, the limit they reached, and no process left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from r1_lightning.rewards.sandbox.watch import Reply, watch

LIMITS = {"clock_s": 30.0, "cpu_s": 1, "output_bytes": 1_000}


def run(*bodies: Callable[[int], None], **limits: float) -> Reply:
    """Fork each body with the write end of a pipe that all share, and watch the last."""
    read, write = os.pipe()
    pids = []
    for body in bodies:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.close(read)
                body(write)
            finally:
                os._exit(0)
        pids.append(pid)
    os.close(write)
    reply = watch(pids, {"stdout": read}, {**LIMITS, **limits})
    assert 0 <= reply.pop("cpu_s") < 1
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    return reply


def test_ends_of_every_kind() -> None:
    assert run(lambda fd: os.write(fd, b"42\xff")) == {"ended": "", "stdout": "42\ufffd"}
    assert run(lambda fd: os._exit(3))["ended"] == "status 3"
    assert run(lambda fd: os.kill(os.getpid(), signal.SIGTERM))["ended"] == "signal 15"
    assert run(lambda fd: os.kill(os.getpid(), signal.SIGKILL))["ended"] == "signal 9"  # without the CPU time: no limit


def test_limits_of_the_clock_and_of_output() -> None:
    assert run(lambda fd: time.sleep(99), clock_s=0.2) == {"ended": "clock", "stdout": ""}
    assert run(lambda fd: (os.close(fd), time.sleep(99)), clock_s=0.2)["ended"] == "clock"
    # 1,000 bytes are allowed, 1,001 are not.
    assert run(lambda fd: os.write(fd, b"x" * 1_000)) == {"ended": "", "stdout": "x" * 1_000}
    assert run(lambda fd: (os.write(fd, b"x" * 1_001), time.sleep(99)))["ended"] == "output"


def test_a_helper_that_fails_first_is_the_reason() -> None:
    reply = run(lambda fd: os._exit(5), lambda fd: (time.sleep(0.5), os._exit(1)))
    assert reply["ended"] == "status 5"
    assert (
        run(lambda fd: (os.close(fd), time.sleep(99)), lambda fd: None)["ended"] == ""
    )  # and one that is not done does not count


@pytest.mark.parametrize("ends", [True, False])
def test_cpu_time_is_that_of_all_whether_they_end_or_are_killed(ends: bool) -> None:
    def spend(fd: int) -> None:
        while time.process_time() < 0.1:
            pass
        if not ends:
            os.write(fd, b"x" * 2_000)
            time.sleep(99)

    read, write = os.pipe()
    pids = []
    for _ in range(2):
        pids.append(os.fork())
        if pids[-1] == 0:
            try:
                spend(write)
            finally:
                os._exit(0)
    os.close(write)
    for pid in pids if ends else []:
        while (
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):  # so that none is killed on its way
            time.sleep(0.01)
    reply = watch(pids, {"stdout": read}, LIMITS)
    assert reply["ended"] == ("" if ends else "output") and (0.2 if ends else 0.1) <= reply["cpu_s"] < 2
