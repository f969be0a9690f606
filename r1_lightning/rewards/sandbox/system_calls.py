"""The system calls that a sandboxed program may not make, and those it may make with some arguments only.

Namespaces and limits decide what a program sees. This table forbids the calls that could escape a sandbox, or use resources of the
machine that no limit counts. By kind:

- **No other process**: fork, vfork, clone without CLONE_THREAD, exec. Threads are allowed if they share one file table
  (CLONE_FILES). So the limits of the single process are the program's limits, a fork bomb is one failed call, and no process can
  stay behind.
- **No sockets** except a socket pair, which asyncio makes for each event loop. The network namespace is empty, but AF_VSOCK (from
  a virtual machine to its host) ignores namespaces. Sending files through the pair is forbidden, because files in transit count
  for no process, and so is enlarging its buffers.
- **No memory outside the address space**: memfd, System V and POSIX message queues, semaphores and shared memory, pages given to
  pipes (a small one keeps a huge page alive), larger pipes, file attributes, and huge pages, of which a machine has a fixed number.
- **No resources with a machine-wide limit**: slots of asynchronous I/O, timers, queued signals, inotify.
- **No channel between two samples** through the library's files, which all samples see: locks of every kind, leases,
  notifications, futexes between processes, queries of the page cache.
- **Nothing that slows others down**: priorities, syncing the machine's disks, interrupting all processors.
- No tracing or reading of other processes, mounts, namespaces, keys, BPF, perf, io_uring, userfaultfd, clocks, kernel modules, own
  filters and the like; and no calls newer than this table.

Numbers: linux/asm/unistd_64.h and asm-generic/unistd.h. Standard library only: this runs inside the sandbox, which does not have
the project's files.
"""

from __future__ import annotations

from typing import NamedTuple

# Name -> number on x86_64 and on aarch64 (None: the architecture has no such call).
DENIED: dict[str, tuple[int, int | None]] = {
    # other processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "open_tree_attr": (467, 467), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "sethostname": (170, 161), "setdomainname": (171, 162),
    # kernel features that no answer needs
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "seccomp": (317, 277), "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446), "lsm_set_self_attr": (460, 460),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "syslog": (103, 116), "personality": (135, 92), "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "vhangup": (153, 58),
    "clock_settime": (227, 112), "settimeofday": (164, 170), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    # sockets, and files sent through them
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "setsockopt": (54, 208),
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # memory outside the address space
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "vmsplice": (278, 75), "splice": (275, 76), "tee": (276, 77),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463), "file_setattr": (469, 469),
    # resources with a limit per machine or user
    "io_setup": (206, 0), "io_destroy": (207, 1), "io_submit": (209, 2), "io_cancel": (210, 3), "io_getevents": (208, 4),
    "io_pgetevents": (333, 292), "timer_create": (222, 107), "timerfd_create": (283, 85),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "fanotify_init": (300, 262),
    # channels between samples through a file that all of them see
    "flock": (73, 32), "mincore": (27, 232), "cachestat": (451, 451), "fadvise64": (221, 223), "readahead": (187, 213),
    "preadv2": (327, 286), "pwritev2": (328, 287),
    "futex_waitv": (449, 449), "futex_wake": (454, 454), "futex_wait": (455, 455), "futex_requeue": (456, 456),
    # what slows others down
    "sync": (162, 81), "syncfs": (306, 267), "fsync": (74, 82), "fdatasync": (75, 83), "msync": (26, 227),
    "sync_file_range": (277, 84), "membarrier": (324, 283), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
}  # fmt: skip
CLONE3 = (
    435,
    435,
)  # fails with ENOSYS: its flags are in memory, which a filter cannot read; C libraries then use clone
FIRST_UNKNOWN = 470  # on both architectures: calls from this number on are newer than this table and fail with ENOSYS


class Check(NamedTuple):
    """A check of one argument of a call.

    The call is refused if the argument is in `refused` or has a bit of `refused_bits`; and, if `allowed` or `allowed_bits` is
    given, unless the argument is in `allowed` or has a bit of `allowed_bits`.
    """

    argument: int
    refused: tuple[int, ...] = ()
    refused_bits: int = 0
    allowed: tuple[int, ...] = ()
    allowed_bits: int = 0


CLONE_FILES, CLONE_THREAD = 0x400, 0x10000
CLONE_NEW = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET; clone has no bit for TIME
_AF_UNIX, _SOCK_STREAM, _SOCK_NONBLOCK, _SOCK_CLOEXEC = 1, 1, 0x800, 0x80000
_STREAMS = tuple(_SOCK_STREAM | flags for flags in (0, _SOCK_NONBLOCK, _SOCK_CLOEXEC, _SOCK_NONBLOCK | _SOCK_CLOEXEC))
# F_DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC, GETPIPE_SZ: not locks, leases, notices, seals and sizes
_FCNTL = (0, 1, 2, 3, 4, 1030, 1032)
# TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what Python asks of a file that it opens
_IOCTL = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_SET_DUMPABLE (a crash would start the machine's own program for crashes), SET_SECCOMP, SET_MM, SCHED_CORE (a processor
# beside this one would stand still), SET_MEMORY_MERGE, SET_PTRACER
_PRCTL = (4, 22, 35, 62, 67, 0x59616D61)
_MAP_HUGETLB = 0x40000
_MADVISE = (12, 100, 101)  # MADV_MERGEABLE, HWPOISON, SOFT_OFFLINE
_FUTEX_PRIVATE = 0x80
_FUTEX_WAITS = (0, 9, 9 | 0x100)  # FUTEX_WAIT and WAIT_BITSET, as pthread_join waits for the kernel's own wake

CHECKED: dict[str, tuple[tuple[int, int], tuple[Check, ...]]] = {
    "clone": (
        (56, 220),
        (Check(0, refused_bits=CLONE_NEW, allowed_bits=CLONE_THREAD), Check(0, allowed_bits=CLONE_FILES)),
    ),
    "fcntl": ((72, 25), (Check(1, allowed=_FCNTL),)),
    "ioctl": ((16, 29), (Check(1, allowed=_IOCTL),)),
    "prctl": ((157, 167), (Check(0, refused=_PRCTL),)),
    "socketpair": ((53, 199), (Check(0, allowed=(_AF_UNIX,)), Check(1, allowed=_STREAMS))),
    "sendto": ((44, 206), (Check(3, allowed=(0,)),)),
    "mmap": ((9, 222), (Check(3, refused_bits=_MAP_HUGETLB),)),
    "madvise": ((28, 233), (Check(2, refused=_MADVISE),)),
    "close_range": (
        (436, 436),
        (Check(2, allowed=(0, 4)),),
    ),  # 4 is CLOSE_RANGE_CLOEXEC; 2 would split the table of files
    "futex": ((202, 98), (Check(1, allowed=_FUTEX_WAITS, allowed_bits=_FUTEX_PRIVATE),)),
}
