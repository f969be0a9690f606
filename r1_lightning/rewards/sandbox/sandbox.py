"""Runs model-written programs as hostile code, in a process tree that the operating system isolates.

A sandbox (`namespaces`, `seccomp`) has no files except Python's standard library, no network, no other processes and no privileges;
CPU time, memory, output, files, threads and wall-clock time are limited. The whole tree is killed when a limit is reached, when the
caller is done, and when the caller dies. A case has one process, or two for a test script (one runs the script, the other the
answer), and cannot create more. So a case can use at most `memory_mb` per process, `tmp_mb` of files (in memory) and the content of
its pipes.

Expected values stay outside. `Sandbox.run` takes a case's input and returns its output; `rewards.equality.code` judges the output
in this process.

`isolation()` tests once whether this machine can isolate programs. If it cannot (not Linux, no user namespaces, a container that
forbids them), it says what is missing, and nothing runs unless the user allows it; programs then have only limits and a process
group.
"""

from __future__ import annotations

import functools
import json
import math
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import r1_lightning
from r1_lightning.rewards.sandbox import allowed_packages, namespaces
from r1_lightning.text.code_tests import CodeTestKind
from r1_lightning.types.errors import require, require_int
from r1_lightning.types.stopping import STOP

START_LIMIT_S = 120.0  # for the start of an interpreter on a busy machine
POLL_S = 0.5
# The wall-clock limit as a multiple of the CPU limit: allows four busy processes per core, and stops a program that sleeps.
CLOCK_FACTOR = 4
# Outcomes: a limit reached (PROGRAM: that of all cases together), or the sandbox itself died.
CPU, CLOCK, OUTPUT, PROGRAM, DIED = "cpu", "clock", "output", "program", "died"
_READ_BYTES = 2**20
# No site-packages of user or machine, no modules from the working directory. Not -I, which ignores PYTHONHASHSEED.
_OPTIONS = ("-s", "-S", "-P", "-X", "utf8")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one case. `cpu_s` is in integer seconds, as the kernel counts; memory is address space per process.

    `program_cpu_s` limits all cases of a program together.
    """

    cpu_s: int = 4
    memory_mb: int = 512
    output_bytes: int = 4 * 2**20
    tmp_mb: int = 16
    threads: int = 32
    program_cpu_s: int = 60

    def __post_init__(self) -> None:
        require_int("cpu_limit_s", self.cpu_s, 1, 3_600)
        require_int("memory_limit_mb", self.memory_mb, 128)
        require_int("program_cpu_limit_s", self.program_cpu_s, 1, 36_000)


@dataclass(frozen=True, slots=True)
class Program:
    """An answer and how to run it, with only those data of the problem's tests that the answer may know."""

    kind: CodeTestKind
    answer: str
    setup: str = ""
    entry_point: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one case; a hostile process may have forged all of it.

    `ended` is "" for a normal end, one of CPU, CLOCK, OUTPUT, PROGRAM, DIED, or words such as "signal 11"; `stdout` is text;
    `report` comes from the answer's process: JSON or a script's token if all is well, else any text; `cpu_s` is the case's CPU
    time.
    """

    ended: str
    stdout: str = ""
    report: str = ""
    cpu_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Isolation:
    """Whether this machine can isolate programs; if not, `missing` says in one line what it lacks."""

    available: bool
    missing: str = ""


class SandboxError(RuntimeError):
    """A sandbox could not start, so no verdict is possible."""


class Sandbox:
    """A context manager that is a sandbox for one program; `run` runs one case. Not thread-safe.

    `packages` are the folders that `allowed_packages.find` returned for the packages that the program may import. `poll` is called
    while a program is awaited, and may raise to end it.

    Raises:
        SandboxError: it cannot start; the message has the system's reason.
    """

    def __init__(
        self,
        program: Program,
        limits: Limits | None = None,
        isolated: bool = True,
        packages: Mapping[str, str] | None = None,
        poll: Callable[[], None] = STOP.poll,
    ) -> None:
        poll()
        self.poll = poll
        self.limits = limits or Limits()
        self.kind = program.kind
        self._folder = None if isolated else tempfile.TemporaryDirectory(prefix="r1_answer_")
        self._process = _start(isolated, self._folder.name if self._folder else "", packages or {})
        self._died = False
        self._cpu_s = self._clock_s = 0.0  # used by the finished cases
        try:
            self._await_start(isolated)
            self._send(_request(program, self.limits))
        except BaseException:
            self.close()
            raise

    def run(self, given: str = "", script: str = "", token: str = "") -> Outcome:
        """Run one case in its own process: `given` is standard input or a JSON array of arguments; or run a script with a token."""
        if self._died:
            return Outcome(DIED)
        cpu_s, clock_s = self._left()
        if min(cpu_s, clock_s) <= 0:
            return Outcome(PROGRAM)
        start_s = time.monotonic()
        try:
            self._send({"given": given, "cpu_s": cpu_s, "clock_s": clock_s})
            if self.kind == "assert":
                self._send({"script": script, "token": token})
            outcome = Outcome(**self._receive(clock_s + START_LIMIT_S))
        except (OSError, EOFError, TypeError, ValueError):
            self._died = True
            return Outcome(DIED)
        self._cpu_s += outcome.cpu_s
        self._clock_s += time.monotonic() - start_s
        full_s = self.limits.cpu_s
        shortened = {CPU: cpu_s < full_s, CLOCK: clock_s < full_s * CLOCK_FACTOR}.get(outcome.ended, False)
        return replace(outcome, ended=PROGRAM) if shortened or self._cpu_s > self.limits.program_cpu_s else outcome

    def _left(self) -> tuple[int, float]:
        """Return CPU and wall-clock seconds for the next case: its own limits, or the program's remainder if that is less."""
        cpu_s = math.ceil(min(self.limits.cpu_s, self.limits.program_cpu_s - self._cpu_s))
        return cpu_s, min(cpu_s * CLOCK_FACTOR, self.limits.program_cpu_s * CLOCK_FACTOR - self._clock_s)

    def close(self) -> None:
        """Kill all remaining processes."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _await_start(self, isolated: bool) -> None:
        try:
            message = self._receive(START_LIMIT_S)
            if isolated and "unshared" in message:
                namespaces.write_ids(self._process.pid)
                self._send({})
                message = self._receive(START_LIMIT_S)
        except (OSError, EOFError, ValueError) as error:
            raise SandboxError(f"a sandbox did not start: {error or 'it ended at once'}") from error
        if "ready" not in message:
            raise SandboxError(f"a sandbox did not start: {message.get('failed', message)}")

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode("ascii")
        assert self._process.stdin is not None
        self._process.stdin.write(struct.pack(">I", len(body)) + body)

    def _receive(self, limit_s: float) -> dict[str, Any]:
        deadline_s = time.monotonic() + limit_s
        (length,) = struct.unpack(">I", self._exactly(4, deadline_s))
        message: dict[str, Any] = json.loads(self._exactly(length, deadline_s))
        return message

    def _exactly(self, length: int, deadline_s: float) -> bytes:
        assert self._process.stdout is not None
        pieces, fd = [], self._process.stdout.fileno()
        while length:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            left_s = deadline_s - time.monotonic()
            if not poll.poll(max(0.0, min(left_s, POLL_S)) * 1000):
                self.poll()
                if left_s > POLL_S:
                    continue
                raise OSError("no word from it in time")
            piece = os.read(fd, min(length, _READ_BYTES))
            if not piece:
                raise EOFError
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


@functools.cache
def isolation() -> Isolation:
    """Test once per process whether this machine can isolate programs, with a sandboxed program that tries to escape."""
    if sys.platform != "linux":
        return Isolation(False, f"programs can only be isolated on Linux, and this is {sys.platform}")
    try:
        with Sandbox(Program("stdin", _LOOK_OUT)) as sandbox:
            outcome = sandbox.run("here")
    except (SandboxError, OSError) as error:
        return Isolation(False, " ".join(str(error).split()))
    if outcome.ended or outcome.stdout != "here []":
        said = " ".join((outcome.stdout or outcome.report).split())[:100]
        return Isolation(False, f"a sandbox let a program out, or did not let it run: {outcome.ended} {said}")
    return Isolation(True)


# Prints its input and the names of all forbidden actions that succeeded.
_LOOK_OUT = """
import os, socket
def can(action):
    try:
        action()
    except OSError:
        return False
    return True
TRIED = {"fork": os.fork, "socket": socket.socket, "proc": lambda: os.listdir("/proc"), "etc": lambda: os.listdir("/etc"),
         "write": lambda: open("/file", "w"), "become root": lambda: os.setuid(0)}
print(input(), [name for name, action in TRIED.items() if can(action)], end="")
"""


def require_isolation(allow_unsandboxed: bool) -> bool:
    """Return True if programs will run isolated. `InvalidInput` if they would not and the user has not allowed that."""
    found = isolation()
    allowed = (
        f"model-written programs need a sandbox, and {found.missing}; true runs them with limits only, with your rights"
    )
    require(found.available or allow_unsandboxed, "allow_unsandboxed", allow_unsandboxed, allowed)
    return found.available


def _start(isolated: bool, folder: str, packages: Mapping[str, str]) -> subprocess.Popen[bytes]:
    project = str(Path(r1_lightning.__file__).resolve().parents[1])
    python = os.path.realpath(
        sys.executable
    )  # not a virtual environment's interpreter, whose packages answers must not see
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    kept |= allowed_packages.SINGLE_THREADED if packages else {}
    arguments = [str(os.getpid()), str(int(isolated)), folder, json.dumps(packages)]
    return subprocess.Popen(
        [python, *_OPTIONS, "-m", "r1_lightning.rewards.sandbox.init", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={"PYTHONPATH": project, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **kept},
        start_new_session=True,
    )


def _request(program: Program, limits: Limits) -> dict[str, Any]:
    return {**asdict(program), **asdict(limits)}
