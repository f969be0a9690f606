"""Starts the processes of a run on this machine, for a command that asks for several and was started once (`trainer.devices=2`).

The first process keeps no rank: it starts one process per rank with its own command line, passes signals on, and watches. The hard
rule: when one process ends badly, all end, and the command's exit code is that of the first. So a rank that is killed cannot leave
others waiting for it. What a rank has to say about its end comes first (`END_S`); then the rest is killed. A rank that hangs where
it waits for no other (the group's time limit ends all other waiting) is killed when the others have been gone for as long.

The ranks stand in sessions of their own: Ctrl-C at the terminal reaches this process alone, which passes it on once. If this
process itself is killed, the pipe of which it holds the one end closes, and each rank ends itself (`end_with_starter`).

The port at which they meet is taken here and handed to rank 0 as an open socket: no other program can take it while torch is
imported.

Imports no torch, so that it takes no memory beside those that work.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from r1_lightning.run.config.exit_codes import AGAIN, INTERRUPTED, LOST, OUT_OF_TIME
from r1_lightning.run.config.place import LISTENING, STARTED, TIMEOUT_S
from r1_lightning.run.config.program import SCRIPTS

LOOPBACK = "/sys/class/net/lo"  # the ranks are on one machine
POLL_S = 0.1
END_S = 3.0  # from the first bad end to the killing of all others
SAVE_S = 120.0  # ... if the first one stopped because it was asked to: the others save, and end by themselves
ASKED = (signal.SIGINT, signal.SIGTERM, *((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()))
STOPPED = (OUT_OF_TIME, INTERRUPTED, *AGAIN)  # exit codes of a rank that was asked to end


def start(count: int, arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> int:
    """Run this command line once for each of `count` ranks; returns 0, or the exit code of the first that ended badly.

    `arguments` are those of the command line as they were typed, and `environment` that in which it was. A process that signal N
    killed counts as 128 + N. One that is there `timeout_s` after another has ended well is killed, and the code is `LOST`.
    """
    reading, writing = os.pipe()
    listening = socket.create_server(("127.0.0.1", 0))
    given = {name: value for name, value in environment.items() if name != LISTENING}
    shared = {**given, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), STARTED: str(reading)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listening.getsockname()[1])}
    if Path(LOOPBACK).exists():  # else gloo asks what the machine's name is, which a laptop's network may not know
        shared.setdefault("GLOO_SOCKET_IFNAME", Path(LOOPBACK).name)
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        with _passing_on(ranks) as came:
            for rank in range(count):
                own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                handed = [reading]
                if rank == 0:
                    own[LISTENING] = str(listening.fileno())
                    handed.append(listening.fileno())
                ranks.append(
                    subprocess.Popen(
                        command(arguments),
                        env=own,
                        stdin=subprocess.DEVNULL,
                        pass_fds=handed,
                        start_new_session=True,
                    )
                )
                listening.close()  # rank 0 has it: where that is gone, the others are refused at once
                for number, reached in came:
                    if reached <= rank:
                        ranks[rank].send_signal(number)
            return _watch(ranks, timeout_s)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
                process.wait()
        os.close(reading)
        os.close(writing)
        listening.close()


def command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a rank: the script of the checkout that runs here, or the program's own command."""
    script = Path(sys.argv[0])
    if script.is_file() and script.resolve().parent == SCRIPTS:
        return [sys.executable, str(script), *arguments]
    return [sys.executable, "-m", "r1_lightning", "train", *arguments]


def end_with_starter() -> None:
    """In a rank: end this process as soon as the process that started it is gone. Does nothing in any other process."""
    reading = os.environ.get(STARTED, "")
    if not reading.isdecimal():
        return

    def wait() -> None:
        os.read(int(reading), 1)  # returns when the last writing end is closed
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="end with the starter").start()


def _watch(ranks: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> int:
    """Wait until all ranks have ended; after the first bad end give the others a while, and kill them. Returns its exit code."""
    code, until_s, hangs_s = 0, 0.0, float("inf")
    while True:
        states = [process.poll() for process in ranks]
        bad = [(rank, state) for rank, state in enumerate(states) if state]
        if bad and not code:
            rank, state = bad[0]
            code = state if state > 0 else 128 - state
            until_s = time.monotonic() + (SAVE_S if code in STOPPED else END_S)
            if state < 0:
                name = signal.Signals(-state).name
                _say(f"error: {_name(ranks, rank)} was killed by {name}; the others end, too")
        if all(state is not None for state in states):
            return code
        if code and time.monotonic() > until_s:
            return code  # `start` kills what is left
        if 0 in states:
            hangs_s = min(hangs_s, time.monotonic() + timeout_s)
        if not code and time.monotonic() > hangs_s:
            rank = states.index(None)
            _say(
                f"error: {_name(ranks, rank)} has not ended in trainer.timeout_s={timeout_s:g} s after rank {states.index(0)}"
            )
            return LOST
        time.sleep(POLL_S)


def _name(ranks: Sequence[subprocess.Popen[bytes]], rank: int) -> str:
    return f"rank {rank} of {len(ranks)} (pid {ranks[rank].pid})"


@contextmanager
def _passing_on(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[tuple[int, int]]]:
    """Pass signals on to all ranks that are there, each signal once; yields each that came, and how many ranks it reached."""
    came: list[tuple[int, int]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append((number, len(ranks)))
        for process in ranks:
            if process.poll() is None:
                process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.signal(number, pass_on) for number in ASKED}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
