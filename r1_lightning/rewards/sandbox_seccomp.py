"""The system calls that a sandboxed program may not make, as a filter that the kernel applies (seccomp, classic BPF).

Namespaces and limits decide what a program sees; the filter takes away the calls with which sandboxes are left or memory is
taken that no limit counts. A refused call fails with EPERM and the program goes on, so that an answer which asks for something
harmless by accident is judged by what it prints.

- **No other process**: fork, vfork, clone without CLONE_THREAD, exec. Threads are allowed. So the memory limit of the one
  process is the limit of the program, a fork bomb is one failed call, and nobody can be left behind. clone3, whose flags lie in
  memory where a filter cannot look, is answered ENOSYS, after which C libraries use clone.
- **No sockets** at all: the network namespace is empty, but AF_VSOCK (from a virtual machine to its host) knows no namespaces.
- **No memory beside the address space**: memfd, System V and POSIX message queues, semaphores and shared memory.
- Tracing and reading other processes, mounts, namespaces, keys, BPF, perf, io_uring, userfaultfd, kernel modules and the like.

Standard library only: this runs inside, where the project is not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Any

# Name -> number on x86_64 and on aarch64 (None: the architecture has no such call); linux/asm/unistd*.h.
DENIED: dict[str, tuple[int, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "personality": (135, 92), "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), (435, 435)
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
X32_BIT = 0x40000000  # numbers from here on are the x32 interface, with a numbering of its own
CLONE_THREAD = 0x00010000
CLONE_NEW = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET; clone has no bit for TIME

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data; the low half on little endian
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


def denied_numbers(machine: str) -> dict[str, int]:
    """Name -> number of every call refused with EPERM on `machine` ("x86_64" or "aarch64")."""
    column = list(AUDIT_ARCH).index(machine)
    return {name: number for name, numbers in DENIED.items() if (number := numbers[column]) is not None}


def program(machine: str) -> bytes:
    """The filter as the kernel takes it, an array of struct sock_filter. `KeyError` for an architecture without numbers."""
    column = list(AUDIT_ARCH).index(machine) if machine in AUDIT_ARCH else -1
    refuse, clone, clone3 = _ERRNO | errno.EPERM, CLONE[column], CLONE3[column]
    code = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),  # another architecture's numbers mean other calls
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, X32_BIT), (_RETURN, 0, 0, refuse)]
    for number in denied_numbers(machine).values():
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    code += [
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 5, clone),  # anything else is allowed
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 0, 2, CLONE_THREAD),
        (_ANY_BIT, 1, 0, CLONE_NEW),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def install() -> None:
    """Put the filter on this thread and all that it starts, for good. `OSError` where the kernel or architecture has none."""
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
