"""The system-call filter: as the kernel applies it, and as an independent interpreter of its program evaluates it."""

from __future__ import annotations

import errno
import platform
import re
import struct
from functools import cache
from pathlib import Path

import pytest

from r1_lightning.rewards.sandbox import seccomp
from r1_lightning.rewards.sandbox.sandbox import Program, Sandbox
from r1_lightning.rewards.sandbox.seccomp import AUDIT_ARCH, denied_numbers, program
from r1_lightning.rewards.sandbox.system_calls import CHECKED, FIRST_UNKNOWN

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
THREAD = 0x003D0F00  # what glibc's pthread_create asks of clone, CLONE_THREAD among it


def column(machine: str) -> int:
    return list(AUDIT_ARCH).index(machine)


@cache
def instructions(machine: str) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HBBI", program(machine)))


def decide(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Run the filter as the kernel would: struct seccomp_data in, a decision out."""
    arch = AUDIT_ARCH[machine] if arch is None else arch
    data = struct.pack("<iIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    code = instructions(machine)
    place, value = 0, 0
    while True:
        kind, if_true, if_false, constant = code[place]
        place += 1
        if kind == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif kind == 0x06:
            return constant
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[kind]
            place += if_true if holds else if_false


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_decisions(machine: str) -> None:
    clone, read = {"x86_64": (56, 0), "aarch64": (220, 63)}[machine]
    denied, checked = set(denied_numbers(machine).values()), {pair[column(machine)] for pair, _ in CHECKED.values()}
    assert all(decide(machine, number) == EPERM for number in denied)
    allowed = {number for number in range(600) if decide(machine, number) == ALLOW}
    assert allowed - checked == set(range(FIRST_UNKNOWN)) - denied - checked - {435}
    assert decide(machine, 435) == ENOSYS and decide(machine, read) == ALLOW
    assert {decide(machine, number) for number in (FIRST_UNKNOWN, 500, 10**6)} == {ENOSYS}
    assert decide(machine, clone, THREAD) == ALLOW
    assert decide(machine, clone, 17) == EPERM  # fork: SIGCHLD and no CLONE_THREAD
    assert decide(machine, clone, THREAD & ~0x400) == EPERM  # a thread with a table of files of its own
    for bit in (17, 25, 26, 27, 28, 29, 30):  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
        assert decide(machine, clone, THREAD | 1 << bit) == EPERM
    assert decide(machine, read, arch=0x40000003) == KILL  # 32-bit code, whose numbers are others


@pytest.mark.parametrize("machine", AUDIT_ARCH)
@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [  # arguments as they stand in the manual of each call
        ("fcntl", [(1, 0), (9, 1030, 10), (1, 4, 0x800), (1, 1032)], [(1, 1031), (1, 6), (1, 37), (1, 1024), (1, 1026), (1, 8)]),
        ("ioctl", [(1, 0x5401), (1, 0x5451), (1, 0x5421)], [(1, 0x5412), (1, 0xC020660B), (1, 0)]),
        ("prctl", [(15, 1), (3,), (38, 1)], [(4, 1), (22, 2), (35,), (62,), (67,), (0x59616D61,)]),
        ("socketpair", [(1, 1), (1, 1 | 0x80000), (1, 1 | 0x80800)], [(1, 2), (1, 5), (2, 1), (16, 1), (40, 1)]),
        ("sendto", [(5, 0, 9, 0)], [(5, 0, 9, 1), (5, 0, 9, 0x4000), (5, 0, 9, 0x4000000)]),
        ("mmap", [(0, 4096, 3, 0x22), (0, 4096, 1, 1)], [(0, 4096, 3, 0x40022), (0, 4096, 3, 0x54040022)]),
        ("madvise", [(0, 1, 4), (0, 1, 14)], [(0, 1, 12), (0, 1, 100), (0, 1, 101)]),
        ("close_range", [(3, 99, 0), (3, 99, 4)], [(3, 99, 2), (3, 99, 6), (3, 99, 8)]),
        ("futex", [(0, 128), (0, 129), (0, 0), (0, 265), (0, 393)], [(0, 1), (0, 3), (0, 4), (0, 10), (0, 5)]),
    ],
)  # fmt: skip
def test_decisions_by_argument(
    machine: str, name: str, allowed: list[tuple[int, ...]], refused: list[tuple[int, ...]]
) -> None:
    number = CHECKED[name][0][column(machine)]
    assert {decide(machine, number, *arguments) for arguments in allowed} == {ALLOW}
    assert {decide(machine, number, *arguments) for arguments in refused} == {EPERM}
    # Half of a register that the kernel does not look at does not help.
    assert {decide(machine, number, *(a | 0xF << 32 for a in arguments)) for arguments in refused} == {EPERM}


def test_the_x32_interface_is_refused() -> None:
    assert decide("x86_64", 0x40000000 + 59) == EPERM and decide("x86_64", 0x40000000) == EPERM


def test_numbers_are_those_of_the_kernel() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    generic = Path("/usr/include/asm-generic/unistd.h")
    if not header.is_file() or not generic.is_file():
        pytest.skip("needs the kernel's headers")
    for file, machine in ((header, "x86_64"), (generic, "aarch64")):
        numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", file.read_text()))
        numbers.pop("syscalls", None)  # how many there are
        newest = max(map(int, numbers.values()))  # headers may be older than this table
        ours = denied_numbers(machine) | {name: pair[column(machine)] for name, (pair, _) in CHECKED.items()}
        known = {name: number for name, number in ours.items() if number <= newest}
        assert len(known) > 100 and known == {name: int(numbers[name]) for name in known}


@pytest.mark.usefixtures("isolated")
def test_the_kernel_refuses_them_and_nothing_else() -> None:
    """Every denied call from inside, with arguments that do nothing; EPERM comes before any look at those."""
    numbers = denied_numbers(platform.machine())
    source = (
        "import ctypes, errno, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"for name, number in {numbers!r}.items():\n    ctypes.set_errno(0)\n"
        "    print(name, libc.syscall(number, -1, 0, 0, 0, 0, 0), errno.errorcode.get(ctypes.get_errno()))\n"
        "import threading\nthread = threading.Thread(target=print, args=('thread', 0, None))\nthread.start()\nthread.join()\n"
        "print('setsid', 0, None if os.getpgid(0) else 0)\nprint('socketpair', 0, __import__('socket').socketpair() and None)\n"
    )
    with Sandbox(Program("stdin", source)) as box:
        outcome = box.run("")
    lines = dict(line.split(" ", 1) for line in outcome.stdout.splitlines())
    assert {name: lines[name] for name in numbers} == dict.fromkeys(numbers, "-1 EPERM")
    assert {name: line for name, line in lines.items() if name not in numbers} == {
        "thread": "0 None", "setsid": "0 None", "socketpair": "0 None",
    }  # fmt: skip


def test_a_machine_without_a_table_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        seccomp.install()


def test_a_filter_is_made_once_before_the_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    seccomp.prepare()
    made = program.cache_info().misses
    seccomp.prepare()
    assert program(platform.machine()) and program.cache_info().misses == made
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    seccomp.prepare()  # no table, no error: that is for `install` to say
