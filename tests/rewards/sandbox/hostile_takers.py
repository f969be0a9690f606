"""Programs that use machine resources which no memory or time limit counts, or leave a message for another sample.

Each is an expression that returns how many units of a resource it got; `most` is the allowed number (0: the kernel must refuse the
first). As programs they are armed like those of `hostile_programs`: right only if they got more. As measurements they print the
number, or the error that stopped them.
"""

from __future__ import annotations

import platform
from typing import NamedTuple

from r1_lightning.rewards.sandbox.seccomp import AUDIT_ARCH
from r1_lightning.rewards.sandbox.system_calls import CHECKED, DENIED
from tests.rewards.sandbox.hostile_programs import Hostile

# In a program: `many(action)` does it until an error and says how often; `kernel(name, ...)` is a system call that raises;
# `library` opens a file that all samples see.
TOOLS = """
import ctypes, errno, fcntl, mmap, os, resource, select, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
held = []
numbers = @NUMBERS@
def checked(result):
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
def kernel(name, *arguments):
    return checked(libc.syscall(numbers[name], *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]))
def many(action, most=2_000):
    for done in range(most):
        try:
            held.append(action())
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            if not done:
                raise
            return done
    return most
def library():
    return os.open(os.__file__, os.O_RDONLY)
def filled(descriptor):
    os.set_blocking(descriptor, False)
    total = 0
    while True:
        try:
            total += os.write(descriptor, bytes(4096))
        except OSError:
            return total
def pairs_sent_through_pairs():
    # What is on its way belongs to no table of files: fill a pair, send it through another, close it, and again.
    carrier = socket.socketpair()
    total = 0
    for _ in range(200):
        pair = socket.socketpair()
        written = filled(pair[0].fileno()) + filled(pair[1].fileno())
        try:
            socket.send_fds(carrier[0], [b'x'], [end.fileno() for end in pair])
        except OSError:
            if not total:
                raise
            break
        total += written
        for end in pair:
            end.close()
    return total
def pairs_filled():
    total = 0
    while True:
        try:
            pair = socket.socketpair()
        except OSError:
            return total
        held.append(pair)
        total += filled(pair[0].fileno()) + filled(pair[1].fileno())
def pipes_filled():
    total = 0
    while True:
        try:
            read, write = os.pipe()
        except OSError:
            return total
        total += filled(write)
def queued_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, [40])
    for _ in range(5_000):
        os.kill(os.getpid(), 40)
    got = 0
    while signal.sigtimedwait([40], 0):
        got += 1
    return got
def watches():
    count = 0
    while True:
        try:
            held.append(select.epoll())
        except OSError:
            return count
        for poll in held:
            for other in (0, *held):
                try:
                    poll.register(other, 0)
                    count += 1
                except (OSError, ValueError):
                    pass
def bytes_of_files(keep_name):
    total = 0
    try:
        while total < 1 << 28:
            file = open('f%d' % total, 'wb', buffering=0)
            held.append(file) if not keep_name else None
            total += file.write(bytes(1 << 20))
            if not keep_name:
                os.unlink(file.name)
    except OSError:
        pass
    return total >> 20
def raised_limits():
    raised = 0
    for name in dir(resource):
        if name.startswith('RLIMIT_'):
            soft, hard = resource.getrlimit(getattr(resource, name))
            if hard != -1:
                try:
                    resource.setrlimit(getattr(resource, name), (hard + 1, hard + 1))
                    raised += 1
                except (OSError, ValueError):
                    pass
    return raised
def threads():
    # Each waits for a lock that nobody gives.
    lock = threading.Lock()
    lock.acquire()
    return many(lambda: threading.Thread(target=lock.acquire, daemon=True).start())
def acl():
    # An access list of 8,000 entries for a user that is there, 64 KB in the kernel beside the file.
    entry = struct.pack('<HHI', 2, 7, os.getuid())
    body = struct.pack('<I', 2) + struct.pack('<HHI', 1, 7, 2**32 - 1) + entry * 8_000 + b''.join(
        struct.pack('<HHI', tag, 7, 2**32 - 1) for tag in (4, 16, 32))
    def action():
        name = 'a%d' % len(held)
        open(name, 'w').close()
        os.setxattr(name, 'system.posix_acl_access', body)
    return many(action, 200)
def shared_futex():
    libc.mmap.restype = ctypes.c_void_p
    place = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, library(), ctypes.c_long(0))
    return 1 + kernel('futex', ctypes.c_void_p(place), 1, 1)
"""


class Taker(NamedTuple):
    """An expression for how many it got, and how many it may get."""

    name: str
    expression: str
    most: int = 0


def tools() -> str:
    """What the programs stand on, with this machine's numbers of system calls."""
    column = list(AUDIT_ARCH).index(platform.machine())
    numbers = {name: pair[column] for name, pair in DENIED.items()} | {
        n: pair[column] for n, (pair, _) in CHECKED.items()
    }
    return TOOLS.replace("@NUMBERS@", repr(numbers))


_ONE = "1 + "  # a call that returns 0 where it works

TAKERS = [
    # what there is a number of for the whole machine or user
    Taker("aio_slots", "many(lambda: kernel('io_setup', 1_000, ctypes.byref(ctypes.c_ulong(0))), 70)"),
    Taker("queued_signals", "queued_signals()", 64),
    Taker("timers", "many(lambda: kernel('timer_create', 1, 0, ctypes.byref(ctypes.c_int(0))))"),
    Taker("timer_files", "many(lambda: kernel('timerfd_create', 1, 0))"),
    Taker("inotify_instances", "many(lambda: kernel('inotify_init1', 0))"),
    Taker("system_v_segments", "many(lambda: kernel('shmget', 0, 1 << 20, 0o1600))"),
    Taker("system_v_semaphores", "many(lambda: kernel('semget', 0, 100, 0o1600))"),
    Taker("system_v_queues", "many(lambda: kernel('msgget', 0, 0o1600))"),
    Taker("posix_queues", "many(lambda: kernel('mq_open', b'q%d' % len(held), 66, 0o600, None))"),
    Taker("keys", "many(lambda: kernel('add_key', b'user', b'k%d' % len(held), b'x', 1, -3))"),
    Taker("threads", "threads()", 31),
    Taker("processes", "many(os.fork)"),
    Taker("open_files", "many(library)", 64),
    Taker("event_files", "many(lambda: os.eventfd(0))", 64),
    Taker("watched_files", "watches()", 64 * 64),
    Taker("files_of_a_table_of_its_own", _ONE + "kernel('close_range', 1_000, 1_001, 2)"),
    Taker("a_thread_with_files_of_its_own", "kernel('clone', 0x10900, 0, 0, 0, 0)"),
    Taker("raised_limits", "raised_limits()"),
    Taker("more_filters", _ONE + "kernel('seccomp', 1, 0, struct.pack('HxxxxxxP', 0, 0))"),
    Taker("more_filters_by_prctl", _ONE + "kernel('prctl', 22, 1, 0, 0, 0)"),
    Taker("rule_sets", "many(lambda: kernel('landlock_create_ruleset', struct.pack('Q', 1), 8, 0))"),
    # memory beside the address space; bytes where it is one
    Taker("sockets_sent_through_sockets", "pairs_sent_through_pairs()"),
    Taker("filled_sockets", "pairs_filled()", 16 << 20),
    Taker("datagram_sockets", "len(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))"),
    Taker("larger_socket_buffers", "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20) or 1"),
    Taker("urgent_bytes", "held.append(socket.socketpair()) or held[0][0].send(b'x', socket.MSG_OOB)"),
    Taker("filled_pipes", "pipes_filled()", 32 * 65_536),
    Taker("larger_pipes", "fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)"),
    Taker("larger_output_pipe", "fcntl.fcntl(1, 1031, 1 << 20)"),
    Taker("pages_given_to_pipes", "kernel('vmsplice', os.pipe()[1], struct.pack('PN', id(held), 8), 1, 8)"),
    Taker("pages_of_files_in_pipes", "os.splice(library(), os.pipe()[1], 4096) if hasattr(os, 'splice') else kernel('splice', 0)"),
    Taker("locked_memory", _ONE + "checked(libc.mlock(ctypes.create_string_buffer(1 << 20), ctypes.c_size_t(1 << 20)))"),
    Taker("all_memory_locked", _ONE + "checked(libc.mlockall(2))"),
    Taker("huge_pages", "len(mmap.mmap(-1, 2 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000))"),
    Taker("merged_pages", "mmap.mmap(-1, 1 << 20).madvise(12) or 1"),
    Taker("memory_files", "many(lambda: os.memfd_create('x'))"),
    Taker("access_lists", "acl()"),
    Taker("attributes", "open('f', 'w').close() or many(lambda: os.setxattr('f', 'user.%d' % len(held), bytes(1 << 10)))"),
    Taker("files_in_tmp", "many(lambda: open('f%d' % len(held), 'w').close(), 5_000)", 1_000),
    Taker("folders_in_tmp", "many(lambda: os.mkdir('d%d' % len(held)), 5_000)", 1_000),
    Taker("links_in_tmp", "open('f', 'w').close() or many(lambda: os.link('f', 'l%d' % len(held)), 5_000)", 1_000),
    Taker("megabytes_in_tmp", "bytes_of_files(True)", 16),
    Taker("megabytes_without_a_name", "bytes_of_files(False)", 16),
    Taker("the_input_grown", "os.ftruncate(0, 1 << 23) or 1"),
    Taker("the_input_written", "os.write(0, bytes(1 << 20))"),
    # word for another sample, or a way to keep it out
    Taker("lock_on_the_library", "fcntl.flock(library(), fcntl.LOCK_EX | fcntl.LOCK_NB) or 1"),
    Taker("shared_lock_on_the_library", "fcntl.flock(library(), fcntl.LOCK_SH | fcntl.LOCK_NB) or 1"),
    Taker("record_lock_on_the_library", "fcntl.lockf(library(), fcntl.LOCK_SH | fcntl.LOCK_NB) or 1"),
    Taker("open_file_lock_on_the_library", "len(fcntl.fcntl(library(), 37, struct.pack('hhqqi4x', 0, 0, 0, 0, 0)))"),
    Taker("who_locks_the_library", "len(fcntl.fcntl(library(), 5, struct.pack('hhqqi4x', 1, 0, 0, 0, 0)))"),
    Taker("lease", "open('f', 'w').close() or fcntl.fcntl(os.open('f', 0), 1024, 0) + 1"),
    Taker("notices_of_the_library", "fcntl.fcntl(os.open(os.path.dirname(os.__file__), 0), 1026, 1) + 1"),
    Taker("watch_on_the_library", _ONE + "kernel('inotify_add_watch', kernel('inotify_init1', 0), os.__file__.encode(), 1)"),
    Taker("futex_of_a_shared_file", "shared_futex()"),
    Taker("what_is_in_memory", _ONE + "kernel('mincore', 0, 0, 0)"),
    Taker("read_what_is_in_memory", "os.preadv(library(), [bytearray(9)], 0, os.RWF_NOWAIT)"),
    Taker("out_of_memory_with_it", "os.posix_fadvise(library(), 0, 0, os.POSIX_FADV_DONTNEED) or 1"),
    Taker("read_ahead", _ONE + "kernel('readahead', library(), 0, 1 << 20)"),
    Taker("where_it_lies_on_disk", "len(fcntl.ioctl(library(), 0xC020660B, bytes(64)))"),
    Taker("abstract_name", "checked(libc.bind(socket.socketpair()[0].fileno(), b'\\x01\\x00\\x00sample', 9)) + 1"),
    # what makes others slow, or outlives the program
    Taker("written_out_disks", _ONE + "kernel('sync')"),
    Taker("written_out_file_system", _ONE + "kernel('syncfs', library())"),
    Taker("flushed_disks", "os.fsync(library()) or 1"),
    Taker("flushed_data", "os.fdatasync(library()) or 1"),
    Taker("flushed_range", _ONE + "kernel('sync_file_range', library(), 0, 4096, 7)"),
    Taker("flushed_memory", _ONE + "kernel('msync', 0, 0, 4)"),
    Taker("interrupts", "kernel('membarrier', 0, 0) or 1"),
    Taker("real_time", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or 1"),
    Taker("another_schedule", "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)) or 1"),
    Taker("priority_of_the_user", "os.setpriority(os.PRIO_USER, 0, 5) or 1"),
    Taker("priority_of_files", _ONE + "kernel('ioprio_set', 1, 0, 3 << 13)"),
    Taker("a_processor_standing_still", _ONE + "kernel('prctl', 62, 1, 0, 0, 0)"),
    Taker("core_dumps", _ONE + "kernel('prctl', 4, 1, 0, 0, 0)"),
    Taker("is_dumpable", "libc.prctl(3, 0, 0, 0, 0)"),
    Taker("may_be_traced", _ONE + "kernel('prctl', 0x59616D61, 1, 0, 0, 0)"),
    Taker("the_clock", "time.clock_settime(time.CLOCK_REALTIME, time.time()) or 1"),
    Taker("the_clocks_speed", _ONE + "kernel('adjtimex', bytes(208))"),
    Taker("zombies", "len(os.waitpid(-1, os.WNOHANG))"),
]  # fmt: skip

# Where nothing is refused, and a count of 0 is what is asserted.
COUNTS = {"raised_limits", "is_dumpable"}


def armed(taker: Taker) -> Hostile:
    """A program that doubles its number only where it got more than it may."""
    attempt = f"try:\n    got = {taker.expression}\nexcept OSError:\n    got = 0\n"
    attempt += f"if got > {taker.most}:\n    print(2 * int(input()))\n"
    return Hostile(taker.name, tools() + attempt)


def measuring() -> str:
    """A program that reads the name of a taker and prints the error that stopped it, or how many it got."""
    expressions = {taker.name: taker.expression for taker in TAKERS}
    return f"""{tools()}
try:
    print(eval({expressions!r}[input()]))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
