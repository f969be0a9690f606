"""Hostile programs. Each is *armed*: it gives the right answer only if its attack works. So a score of 0 means that the sandbox
contained it, and a hole in the sandbox fails a test.

All are asked to double a number: on standard input (visible case 4, hidden case 21), as a function `double`, or by a test
script. `@SECRET@` stands for the path of a file that is private to this user, `@PYTHON@` for the folder of the standard
library.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.text.code_tests import CodeCase, CodeTestKind, CodeTests

TESTS_OF = {
    "stdin": CodeTests("stdin", (CodeCase("4\n", "8\n", is_visible=True), CodeCase("21\n", "42\n"))),
    "call": CodeTests("call", (CodeCase("[4]", "8", is_visible=True), CodeCase("[21]", "42")), entry_point="double"),
    "assert": CodeTests(
        "assert",
        script="def check(candidate):\n    assert candidate(4) == 8\n    assert candidate(21) == 42\n",
        entry_point="double",
    ),
}
TAME = {
    "stdin": "print(2 * int(input()))",
    "call": "def double(n):\n    return 2 * n",
    "assert": "def double(n):\n    return 2 * n",
}
CANARY = "R1_CANARY"  # an environment variable of the parent that no program may see

# `if_works(action)` answers right where `action` raises nothing; `libc` gives -1 where the kernel says no.
_ARMS = """
import ctypes, os, signal, socket, subprocess, sys, threading, time
def win():
    print(2 * int(input()))
def if_works(action):
    try:
        result = action()
    except BaseException:
        return
    if result is not False:
        win()
def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False
libc = ctypes.CDLL(None, use_errno=True)
"""
# Writes what a report might look like to every file that may be open, and is gone.
_FORGE = """
import os
def write_everywhere(data):
    for fd in range(3, 64):
        try:
            os.write(fd, data)
        except OSError:
            pass
    os._exit(0)
"""


@dataclass(frozen=True)
class Hostile:
    """`is_slow`: it goes on until a limit of time stops it."""

    name: str
    source: str
    kind: CodeTestKind = "stdin"
    is_slow: bool = False


def _tries(**actions: str) -> list[Hostile]:
    return [Hostile(name, f"{_ARMS}\nif_works(lambda: {action})\n") for name, action in actions.items()]


# One expression each: if it raises nothing and is not False, the attack has worked.
ATTEMPTS = _tries(
    fork="os.fork() > 0 or win() or time.sleep(1)",
    forkpty="os.forkpty()",
    vfork_exec="subprocess.run(['/bin/true'])",
    shell="os.system('true') == 0",
    detached_child="subprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)",
    posix_spawn="os.posix_spawn(sys.executable or '/bin/true', ['x'], {})",
    become_another_program="os.execv('/bin/echo', ['echo', '42'])",
    python_again="subprocess.run([sys.executable, '-c', '1'], check=True)",
    read_passwords="open('/etc/passwd').read()",
    read_private_file="open('@SECRET@').read()",
    read_host_name="os.uname().nodename == 'sandbox' and open('/etc/hostname')",
    read_environment_of_self="open('/proc/self/environ').read()",
    look_at_processes="os.listdir('/proc/1')",
    memory_of_parent="open('/proc/%d/mem' % os.getppid(), 'r+b')",
    list_devices="set(os.listdir('/dev')) > {'null', 'zero', 'urandom', 'stdin', 'stdout', 'stderr', 'case'}",
    kernel_memory="open('/dev/mem', 'rb')",
    terminal="open('/dev/tty', 'w')",
    control_groups="os.listdir('/sys')",
    tcp="socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    unix_socket="socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    host_of_the_machine="socket.socket(40, socket.SOCK_STREAM)",
    resolve_a_name="socket.getaddrinfo('localhost', 80) and socket.create_connection(('localhost', 80))",
    trace_parent="libc.ptrace(16, os.getppid(), 0, 0) == 0",
    ask_to_be_traced="libc.ptrace(0, 0, 0, 0) == 0",
    read_memory_of_init="libc.process_vm_readv(1, None, 0, None, 0, 0) >= 0",
    mount_proc="os.mkdir('p') or libc.mount(b'proc', b'p', b'proc', 0, None) == 0",
    mount_tmpfs="os.mkdir('p') or libc.mount(b'x', b'p', b'tmpfs', 0, None) == 0",
    unmount="libc.umount2(b'/tmp', 2) == 0",
    new_user_namespace="libc.unshare(0x10000000) == 0",
    new_namespace_by_clone="libc.syscall(56, 0x10000011, 0, 0, 0, 0) >= 0",
    chroot="os.chroot('/tmp')",
    become_root="os.setuid(0)",
    give_files_away="open('f', 'w') and os.chown('f', 0, 0)",
    make_a_device="os.mknod('d', 0o020666, os.makedev(1, 3)) or open('d')",
    raise_a_limit="__import__('resource').setrlimit(__import__('resource').RLIMIT_CPU, (9999, 9999))",
    more_memory="__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (-1, -1))",
    higher_priority="os.nice(0) > os.nice(-5)",  # at -20 already there is no higher one to be had
    memory_files="os.memfd_create('x')",
    shared_memory="libc.shmget(0, 1 << 30, 0o1600) >= 0",
    message_queue="libc.mq_open(b'/q', 66, 0o600, None) >= 0",
    io_uring="libc.syscall(425, 8, b'\\0' * 120) >= 0",
    kernel_keys="libc.syscall(250, 0, -3, 1) >= 0",
    bpf="libc.syscall(321, 0, b'\\0' * 128, 128) >= 0",
    watch_performance="libc.syscall(298, b'\\0' * 128, 0, -1, -1, 0) >= 0",
    faults_in_user_space="libc.syscall(323, 1) >= 0",
    write_to_the_library="open('@PYTHON@/evil.py', 'w')",
    write_to_the_root="open('/evil', 'w')",
    delete_the_library="os.remove('@PYTHON@/os.py')",
    symbolic_link_out="os.symlink('/', 'out') or open('out/etc/passwd')",
    link_to_a_private_file="os.symlink('@SECRET@', 'out') or open('out').read()",
    climb_out="open('../' * 20 + 'etc/passwd')",
    hard_link="os.link('@PYTHON@/os.py', 'os.py') or open('os.py', 'a')",
    huge_file="open('f', 'wb').write(bytes(64 << 20))",
    sparse_file="open('f', 'wb').truncate(1 << 40)",
    huge_files_in_sum="[open(str(n), 'wb').write(bytes(4 << 20)) for n in range(50)]",
    countless_files="[open(str(n), 'w').close() for n in range(5_000)]",
    installed_packages="__import__('torch')",
    our_own_package="open(__import__('r1_lightning').__file__)",
    inherited_files="any(is_open(fd) for fd in range(4, 4096))",
    memory_at_once="bytearray(1 << 31)",
    memory_by_and_by="[bytearray(1 << 24) for _ in range(100)]",
    mapped_memory="__import__('mmap').mmap(-1, 1 << 31)",
    thread_bomb="[threading.Thread(target=time.sleep, args=(1,), daemon=True).start() for _ in range(1_000)]",
    deep_recursion="(lambda f: f(f))(lambda f: f(f))",
    no_recursion_limit="sys.setrecursionlimit(10**9) or (lambda f: f(f))(lambda f: f(f))",
    crash="ctypes.string_at(0)",
    signals_to_everybody="os.kill(-1, signal.SIGKILL) or False",
    stop_init="os.kill(1, signal.SIGSTOP) or False",
    kill_init="os.kill(1, signal.SIGKILL) or False",
    interrupt_init="os.kill(1, signal.SIGINT) or False",
    kill_parent="os.kill(os.getppid(), signal.SIGKILL) or False",
    kill_a_group="os.killpg(os.getpgid(os.getppid()), signal.SIGKILL) or False",
)  # fmt: skip

# What is no single expression: each begins with its name, and with "(slow)" where it goes on until a limit of time stops it.
_STDIN = r"""
### fork_bomb
@ARMS@
while True:
    if os.fork() == 0:
        win()

### double_fork
@ARMS@
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        win()
        time.sleep(1000)
    os._exit(0)

### canary
import os
if 'R1_CANARY' in os.environ or os.environ:
    print(2 * int(input()))

### canary_in_memory
import ctypes
value = ctypes.CDLL(None).getenv
value.restype = ctypes.c_char_p
if value(b'R1_CANARY'):
    print(2 * int(input()))

### exit_at_once
import sys
sys.exit(0)

### vanish_at_once
import os
os._exit(0)

### visible_example
print(8)

### all_that_was_seen
import sys
print(8 if sys.stdin.read() == '4\n' else 0)

### files_stay_between_cases
import os
print(42 if os.path.exists('seen') else 8)
open('seen', 'w').close()

### find_the_expected_value
import gc, sys
frame, found = sys._getframe(), []
while frame:
    found.append(str(frame.f_locals))
    frame = frame.f_back
found += [str(o)[:10_000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 100]
needles = ''.join(['is_vis', 'ible']), ''.join(['4', '2', chr(92), 'n'])  # not in one piece in this text
if any(needle in text for text in found for needle in needles):
    print(2 * int(input()))

### search_every_file
import os
for folder, _, names in os.walk('/tmp'):
    for name in names:
        print(open(os.path.join(folder, name)).read())

### endless_lines (slow)
while True:
    print('42')

### endless_line (slow)
import sys
print('42', end=' ')
while True:
    sys.stdout.write('42' * 10_000)

### endless_errors (slow)
import sys
while True:
    sys.stderr.write('42' * 10_000)

### nul_after_the_answer
print(str(2 * int(input())) + chr(0))

### bytes_that_are_no_text
import os
os.write(1, str(2 * int(input())).encode() + bytes([0xff, 0xfe]))

### right_to_left_and_invisible
print(chr(0x202e) + str(2 * int(input())) + chr(0x200b))

### answer_then_fail
print(2 * int(input()))
raise ValueError('late')

### answer_then_exit_badly
print(2 * int(input()), flush=True)
import os
os._exit(3)

### answer_then_loop (slow)
print(2 * int(input()), flush=True)
while True:
    pass

### answer_then_a_thread_loops (slow)
import threading
print(2 * int(input()), flush=True)
def spin():
    while True:
        pass
threading.Thread(target=spin).start()

### loop (slow)
while True:
    pass

### loop_that_ignores_signals (slow)
import signal
for number in set(signal.Signals) - {9, 19}:
    signal.signal(number, signal.SIG_IGN)
while True:
    pass

### sleep (slow)
import time
print(2 * int(input()), flush=True)
time.sleep(10**6)

### close_everything_and_loop (slow)
import os
os.closerange(0, 100)
while True:
    pass

### stop_itself (slow)
import os
os.kill(os.getpid(), 19)

### import_hook
import sys
class Hook:
    def find_spec(self, *_):
        raise SystemExit(0)
sys.meta_path.insert(0, Hook())
import cmath

### no_more_printing
import builtins
builtins.print = lambda *_: None
print(2 * int(input()))

### exit_from_an_exit_function
import atexit, os
atexit.register(os._exit, 0)
print(2 * int(input()), end='')

### an_error_that_never_speaks (slow)
class Silent(Exception):
    def __str__(self):
        while True:
            pass
raise Silent
"""

_CALL = r"""
### call_exit
import sys
def double(n):
    sys.exit(0)

### call_vanish
import os
def double(n):
    os._exit(0)

### call_constant
def double(n):
    return 8

### call_forged_at_once
@FORGE@
write_everywhere(b'{"result": 8}')

### call_forged_for_all_cases
@FORGE@
write_everywhere(b'{"result": 8}\n{"result": 42}\n')

### call_patched_json
import json
json.dumps = lambda v: '{"result": 8}'
def double(n):
    return 0

### call_as_text
def double(n):
    return str(2 * n)

### call_true_for_one
def double(n):
    return [2 * n]

### call_deep_result
def double(n):
    v = []
    for _ in range(10**5):
        v = [v]
    return v

### call_forged_depth
@FORGE@
write_everywhere(b'{"result":' + b'[' * 60_000)

### call_giant_number
def double(n):
    return 10 ** 40_000

### call_nan
def double(n):
    return float('nan')

### call_no_function
double = 42

### call_class_as_function
class double:
    def __init__(self, n): self.n = 2 * n

### call_patched_checker
import sys
for module in list(sys.modules.values()):
    for name in ('same_value', 'same_result', 'same_output', '_why'):
        setattr(module, name, lambda *_: True)
def double(n):
    return 0
"""

# Functions that cheat whoever calls them, as a problem's case ("call_...") and as a script ("script_...").
_CALLED = r"""
### equal_to_all
class Same(int):
    def __eq__(self, other):
        return True
    __hash__ = int.__hash__
def double(n):
    return Same(0)

### object_equal_to_all
class Same:
    def __eq__(self, other):
        return True
def double(n):
    return Same()

### giant_result
def double(n):
    return 'x' * (8 << 20)
"""

_ASSERT = r"""
### script_exit
import sys
sys.exit(0)

### script_exit_when_called
import os
def double(n):
    os._exit(0)

### script_system_exit
def double(n):
    raise SystemExit(0)

### script_other_builtins
import builtins
builtins.AssertionError = type('E', (SystemExit,), {})
def double(n):
    return 0

### script_own_check
def check(candidate):
    pass
def double(n):
    return 0

### script_no_asserts
import ast, sys
ast.Assert = ast.Pass
sys.flags = None
def double(n):
    return 0

### script_prints_tokens
import gc, re, sys
found = set()
frame = sys._getframe()
texts = []
while frame:
    texts.append(str(frame.f_locals))
    frame = frame.f_back
texts += [str(o)[:5_000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 100]
tokens = sorted(set(re.findall('[0-9a-f]{32}', ' '.join(texts)))) or ['0' * 32]
@FORGE@
write_everywhere(tokens[0].encode())

### script_prints_token
print('token')
print('0' * 32)
def double(n):
    print('token')

### script_forged_values
@FORGE@
write_everywhere(b'[8]\n[8]\n')

### script_forged_objects
@FORGE@
write_everywhere(b'[{"object": "Same"}]\n' * 2)

### script_forged_error
@FORGE@
write_everywhere(b'["SystemExit", ""]\n')

### script_kills_its_checker
import os, signal
def double(n):
    os.kill(-1, signal.SIGKILL)

### script_loop (slow)
def double(n):
    while True:
        pass

### script_read_the_script
import gc
def double(n):
    held = [str(o)[:2_000] for o in gc.get_objects() if isinstance(o, dict) and len(o) < 50]
    return 2 * n if any(''.join(['candi', 'date(']) in text for text in held) else 0

"""


def _sections(text: str, kind: CodeTestKind, prefix: str = "") -> list[Hostile]:
    found = []
    for section in text.split("### ")[1:]:
        title, _, source = section.partition("\n")
        name, slow, _ = title.partition(" (slow)")
        source = source.replace("@ARMS@\n", _ARMS).replace("@FORGE@\n", _FORGE)
        found.append(Hostile(prefix + name, source, kind, bool(slow)))
    return found


ALL = [
    *ATTEMPTS,
    *_sections(_STDIN, "stdin"),
    Hostile("endless_compilation", "(" * 50_000),
    Hostile("nul_in_the_source", "print(2 * int(input()))\n\0"),
    Hostile("half_a_character_in_the_source", "print(2 * int(input()))  # \ud800"),
    *_sections(_CALL, "call"),
    *_sections(_CALLED, "call", "call_"),
    *_sections(_ASSERT, "assert"),
    *_sections(_CALLED, "assert", "script_"),
]
