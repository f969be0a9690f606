"""The kernel's system-call filter for a sandboxed program (seccomp, classic BPF), built from the table in `system_calls`.

A refused call fails with EPERM and the program continues, so an answer with a harmless accidental call is still judged by its
output. Calls newer than the table, and clone3, fail with ENOSYS, as on an older kernel; libraries then use older calls.

Standard library only: this runs inside the sandbox, which does not have the project's files.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from typing import Any

from r1_lightning.rewards.sandbox.system_calls import CHECKED, CLONE3, DENIED, FIRST_UNKNOWN, Check

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
X32_BIT = 0x40000000  # numbers from here on belong to the x32 interface, which numbers its calls differently

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE, _UNKNOWN = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT, _ARGUMENT_BYTES = (
    0,
    4,
    16,
    8,
)  # in struct seccomp_data; the low half on little endian
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

Instruction = tuple[int, int, int, int]  # opcode, jump distance if true, jump distance if false, constant


def denied_numbers(machine: str) -> dict[str, int]:
    """Map the name of every call that is always refused with EPERM to its number on `machine` ("x86_64" or "aarch64")."""
    column = list(AUDIT_ARCH).index(machine)
    return {name: number for name, numbers in DENIED.items() if (number := numbers[column]) is not None}


@functools.cache  # init builds it once for all of its forks
def program(machine: str) -> bytes:
    """Return the filter in the kernel's format, an array of struct sock_filter. `KeyError` for an unknown architecture."""
    column = list(AUDIT_ARCH).index(machine) if machine in AUDIT_ARCH else -1
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),  # in another architecture the numbers mean other calls
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, X32_BIT), (_RETURN, 0, 0, _REFUSE)]
    code += [(_AT_LEAST, 0, 1, FIRST_UNKNOWN), (_RETURN, 0, 0, _UNKNOWN)]
    code += [(_EQUAL, 0, 1, CLONE3[column]), (_RETURN, 0, 0, _UNKNOWN)]
    for number in denied_numbers(machine).values():
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    for numbers, checks in CHECKED.values():
        block = [step for check in checks for step in _checked(check)] + [(_RETURN, 0, 0, _ALLOW)]
        code += [(_EQUAL, 0, len(block), numbers[column]), *block]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _checked(check: Check) -> list[Instruction]:
    """Return instructions that refuse the call, or fall through if this check passes."""
    code: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS_AT + _ARGUMENT_BYTES * check.argument)]
    refused = [(_EQUAL, value) for value in check.refused] + [(_ANY_BIT, check.refused_bits)] * bool(check.refused_bits)
    for test, constant in refused:
        code += [(test, 0, 1, constant), (_RETURN, 0, 0, _REFUSE)]
    allowed = [(_EQUAL, value) for value in check.allowed] + [(_ANY_BIT, check.allowed_bits)] * bool(check.allowed_bits)
    for place, (test, constant) in enumerate(allowed):
        code.append(
            (test, len(allowed) - place, 0, constant)
        )  # jumps over the remaining tests and the refusal after them
    return [*code, (_RETURN, 0, 0, _REFUSE)] if allowed else code


def prepare() -> None:
    """Build this machine's filter, if its architecture is known, so that forks inherit it."""
    if platform.machine() in AUDIT_ARCH:
        program(platform.machine())


def install() -> None:
    """Install the filter permanently on this thread and its children. `OSError` if kernel or architecture do not support it."""
    if platform.machine() not in AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"seccomp: no table of system calls for {platform.machine()}")
    code = program(platform.machine())
    array = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(array))
    libc = ctypes.CDLL(None, use_errno=True)
    steps: tuple[tuple[Any, ...], ...] = (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(filter_program), 0, 0),
    )
    for arguments in steps:
        if libc.prctl(*(a if isinstance(a, ctypes.c_char_p) else ctypes.c_ulong(a) for a in arguments)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl: {os.strerror(number)}")
