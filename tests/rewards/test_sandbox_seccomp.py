"""The filter of system calls: as the kernel applies it, and as an independent reading of its program says for other machines."""

from __future__ import annotations

import errno
import platform
import re
import struct
from functools import cache
from pathlib import Path

import pytest

from r1_lightning.rewards import sandbox_seccomp
from r1_lightning.rewards.sandbox import Program, Sandbox
from r1_lightning.rewards.sandbox_seccomp import AUDIT_ARCH, denied_numbers, program

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
THREAD = 0x003D0F00  # what glibc's pthread_create asks of clone, CLONE_THREAD among it


@cache
def instructions(machine: str) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HBBI", program(machine)))


def decide(machine: str, number: int, first_argument: int = 0, arch: int | None = None) -> int:
    """Run the filter as the kernel would: struct seccomp_data in, a decision out."""
    arch = AUDIT_ARCH[machine] if arch is None else arch
    data = struct.pack("<iIQ6Q", number, arch, 0, first_argument, *[0] * 5)
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
    denied = denied_numbers(machine)
    assert all(decide(machine, number) == EPERM for number in denied.values())
    allowed = [number for number in range(600) if decide(machine, number, THREAD) == ALLOW]
    assert set(allowed) == set(range(600)) - set(denied.values()) - {435}
    assert decide(machine, 435) == ENOSYS and decide(machine, read) == ALLOW
    assert decide(machine, clone, THREAD) == ALLOW
    assert decide(machine, clone, 17) == EPERM  # fork: SIGCHLD and no CLONE_THREAD
    for bit in (17, 25, 26, 27, 28, 29, 30):  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
        assert decide(machine, clone, THREAD | 1 << bit) == EPERM
    assert decide(machine, read, arch=0x40000003) == KILL  # 32-bit code, whose numbers are others


def test_the_x32_interface_is_refused() -> None:
    assert decide("x86_64", 0x40000000 + 59) == EPERM and decide("x86_64", 0x40000000) == EPERM


def test_numbers_are_those_of_the_kernel() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    generic = Path("/usr/include/asm-generic/unistd.h")
    if not header.is_file() or not generic.is_file():
        pytest.skip("needs the kernel's headers")
    for file, machine in ((header, "x86_64"), (generic, "aarch64")):
        numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", file.read_text()))
        known = {name: number for name, number in denied_numbers(machine).items() if name in numbers}
        assert len(known) >= len(denied_numbers(machine)) - 2  # headers may be older than memfd_secret
        assert known == {name: int(numbers[name]) for name in known}


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
    monkeypatch.setattr(sandbox_seccomp.platform, "machine", lambda: "riscv64")
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        sandbox_seccomp.install()
