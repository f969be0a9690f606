"""The first process of a sandbox: sets up the isolation, then runs each test case in a forked process.

`rewards.sandbox.sandbox` starts it as a program. It unshares its namespaces (user, mounts, processes, network, IPC, host name,
cgroups), has the parent map its user ids, and forks *init*, process 1 of the new process namespace. When init ends, the kernel
kills everything in the sandbox; init ends when its requests end; and both are killed with the thread that started them
(PR_SET_PDEATHSIG). Init builds a root folder of read-only bind mounts (the standard library and the folders of the loaded shared
libraries) and a small /tmp that is new for every case; there is no /proc, no other file and only a minimal /dev, and the old root
is unmounted.

A case is a fork of init, not a new interpreter, and takes a few milliseconds. The fork drops its ids and capabilities, sets its
limits, closes every file except its own pipes, and installs the system-call filter; only then does it read the answer. Init reads
the case's output up to a limit, enforces the wall-clock limit, and kills all remaining processes. Messages are JSON with a length
prefix, read to the exact byte, so that no part of a later message, such as a test script, is in a buffer that a fork inherits.

Without `isolated` (which the user must allow) there are only limits, a process group and, if the kernel supports it, the filter.

Standard library only.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import importlib
import json
import os
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from r1_lightning.rewards.sandbox import allowed_packages, child, interpreter_exit, namespaces, seccomp
from r1_lightning.rewards.sandbox.watch import Reply, watch

FIRST_FREE_FD = 10  # the descriptors below are reserved for a case's own pipes
MOST_FDS = 64
MOST_SIGNALS = 64  # pending signals; timers count, too
# The modules that answers import most often, loaded once for all cases.
LOADED = ("bisect", "collections", "copy", "heapq", "itertools", "math", "operator", "re", "string")

# Makes standard input with the given bytes, and both ends of standard output.
Streams = Callable[[bytes], tuple[int, int, int]]


class _Pipe(NamedTuple):
    read: int
    write: int


def main() -> None:
    """Arguments: the parent's process id, "1" for isolation, a folder to work in where there is none, packages as JSON."""
    parent, isolated, folder, packages = int(sys.argv[1]), sys.argv[2] == "1", sys.argv[3], json.loads(sys.argv[4])
    sys.path[:] = [entry for entry in sys.path if entry.startswith(sys.base_prefix)]
    for name in LOADED:
        importlib.import_module(name)
    interpreter_exit.add_exits()
    seccomp.prepare()
    link = Link(*_high_fds())
    streams: Streams = _streams
    try:
        if sys.platform == "linux":
            namespaces.die_with_parent(parent)
        if isolated:
            namespaces.leave_namespaces()
            link.send({"unshared": True})
            link.receive()  # the parent has written our user-id map
            namespaces.die_with_parent(parent)  # again, because entering a user namespace resets it
            alive = _Pipe(*os.pipe())  # closed by the kernel when this process ends
            pid = os.fork()
            if pid:
                link.close()
                os.waitpid(pid, 0)
                return
            os.close(alive.write)
            namespaces.die_with_parent(None)
            if select.select([alive.read], [], [], 0)[0]:
                return  # the parent ended before PR_SET_PDEATHSIG took effect
            os.close(alive.read)
            streams = functools.partial(namespaces.fresh_streams, namespaces.build(packages))
        link.send({"ready": True})
    except OSError as error:
        link.send({"failed": f"{error.strerror or error}"})
        return
    if packages:
        sys.path.append(allowed_packages.FOLDER if isolated else allowed_packages.link(packages, folder))
    serve(link, isolated, folder, packages, streams)


class Link:
    """The pipes to the parent: JSON objects, each with a length prefix."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink = source, sink

    def send(self, message: Mapping[str, Any]) -> None:
        body = json.dumps(message).encode("ascii")
        unsent = memoryview(struct.pack(">I", len(body)) + body)
        while unsent:
            unsent = unsent[os.write(self.sink, unsent) :]

    def receive(self) -> dict[str, Any]:
        """Return the next message; end this process if the parent has closed the pipe."""
        (length,) = struct.unpack(">I", self._exactly(4))
        message: dict[str, Any] = json.loads(self._exactly(length))
        return message

    def close(self) -> None:
        os.close(self.source)
        os.close(self.sink)

    def _exactly(self, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.read(self.source, min(length, 2**20))
            if not piece:
                os._exit(0)
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


def serve(link: Link, isolated: bool, folder: str, packages: Mapping[str, str], streams: Streams) -> None:
    """Serve one answer: receive its request, then its cases until the parent stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # no signal from an answer may end init
    request = link.receive()
    runs: dict[str, Callable[..., Reply]] = {
        "stdin": functools.partial(_run_stdin, streams),
        "call": _run_call,
        "assert": _run_script,
    }
    number = 0
    allowed_packages.load(packages, request["setup"], request["answer"])
    gc.freeze()  # so that the garbage collection at an answer's end skips init's objects
    while True:
        case = link.receive()
        if isolated:
            home = namespaces.fresh_tmp(request["tmp_mb"])
        else:
            home = os.path.join(folder, str(number))
            os.mkdir(home)
        limited = {**request, "cpu_s": case["cpu_s"], "clock_s": case["clock_s"]}
        enter = functools.partial(_enter, limited, isolated, home, os.getpid())
        link.send(runs[request["kind"]](link, limited, case, enter))
        if isolated:
            namespaces.drop_tmp()
        number += 1


def _run_stdin(
    streams: Streams, link: Link, request: Mapping[str, Any], case: Mapping[str, Any], enter: Callable[[], None]
) -> Reply:
    report = _Pipe(*os.pipe())
    given, read, write = streams(case["given"].encode("utf-8", "surrogatepass"))
    pid = _fork(lambda: child.answer_stdin(request), enter, {0: given, 1: write, 3: report.write})
    _close(given, write, report.write)
    return watch([pid], {"stdout": read, "report": report.read}, request)


def _run_call(link: Link, request: Mapping[str, Any], case: Mapping[str, Any], enter: Callable[[], None]) -> Reply:
    report = _Pipe(*os.pipe())
    pid = _fork(lambda: child.answer_call(request, case["given"]), enter, {3: report.write})
    _close(report.write)
    return watch([pid], {"report": report.read}, request)


def _run_script(link: Link, request: Mapping[str, Any], case: Mapping[str, Any], enter: Callable[[], None]) -> Reply:
    calls, returns, report = _Pipe(*os.pipe()), _Pipe(*os.pipe()), _Pipe(*os.pipe())
    answer = _fork(lambda: child.answer_calls(request), enter, {4: calls.read, 5: returns.write})
    secret = link.receive()  # only now, so that the answer's process was not forked from one that has read the script
    checker = _fork(
        lambda: child.check_script(request, secret["script"], secret["token"]),
        enter,
        {3: report.write, 4: calls.write, 5: returns.read},
    )
    _close(calls.read, calls.write, returns.read, returns.write, report.write)
    return watch([answer, checker], {"report": report.read}, request)


def _fork(body: Callable[[], None], enter: Callable[[], None], files: Mapping[int, int]) -> int:
    """Fork a process without privileges that has only `files` (its descriptor -> ours), runs `body` and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for own, ours in files.items():
            os.dup2(ours, own)
        for unused in set(range(FIRST_FREE_FD)) - {0, 1, 2, *files}:
            os.close(unused)
        os.closerange(FIRST_FREE_FD, 2**20)
        enter()
        body()
    finally:
        os._exit(71)


def _enter(request: Mapping[str, Any], isolated: bool, home: str, init: int) -> None:
    """Set limits and drop all privileges before a process reads an answer. Any failure raises `OSError` and ends the process.

    `init` is the parent process: without a process namespace the process must be killed with it.
    """
    os.setsid()
    os.chdir(home)
    cpu_s, megabyte = request["cpu_s"], 2**20
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),  # SIGXCPU, then SIGKILL if the process ignores it
        resource.RLIMIT_AS: (request["memory_mb"] * megabyte,) * 2,
        resource.RLIMIT_FSIZE: (request["tmp_mb"] * megabyte,) * 2,
        resource.RLIMIT_NOFILE: (MOST_FDS, MOST_FDS),
        resource.RLIMIT_CORE: (0, 0),
    }
    if isolated:  # these count per user; in a user namespace that means per sandbox
        limits[resource.RLIMIT_NPROC] = (request["threads"],) * 2
        limits[resource.RLIMIT_MEMLOCK] = (0, 0)
        limits[resource.RLIMIT_SIGPENDING] = (MOST_SIGNALS, MOST_SIGNALS)
        for kind in (resource.RLIMIT_MSGQUEUE, resource.RLIMIT_NICE, resource.RLIMIT_RTPRIO):
            limits[kind] = (0, 0)
    for kind, limit in limits.items():
        resource.setrlimit(kind, limit)
    if isolated:
        namespaces.drop_rights()
        seccomp.install()
    else:
        with suppress(OSError, AttributeError):
            namespaces.die_with_parent(init)
            seccomp.install()


def _streams(given: bytes) -> tuple[int, int, int]:
    """Return standard input with the content `given`, and both ends of standard output, without file names."""
    file = os.memfd_create("given", os.MFD_ALLOW_SEALING) if hasattr(os, "memfd_create") else _unnamed_file()
    unsent = memoryview(given)
    while unsent:
        unsent = unsent[os.write(file, unsent) :]
    os.lseek(file, 0, os.SEEK_SET)
    with suppress(AttributeError, OSError):  # make it read-only
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return file, *os.pipe()


def _unnamed_file() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _high_fds() -> tuple[int, int]:
    """Move the pipes to the parent to high descriptors, and open /dev/null on the low ones permanently."""
    source, sink = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD) for fd in (0, 1))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(FIRST_FREE_FD):
        if fd != null:
            os.dup2(null, fd)
    return source, sink


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


if __name__ == "__main__":
    main()
