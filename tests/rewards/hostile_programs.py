"""Programs that mean harm. Each is *armed*: it gives the right answer only where its attack has worked, so that a score of 0 says that
it was contained, and a hole in the sandbox turns a test red.

All are asked to double a number: on standard input (visible case 4, hidden case 21), as a function `double`, or by a test script. `@SECRET@`
stands for the path of a file that is private to this user, `@PYTHON@` for the folder of the standard library.
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
    list_devices="os.listdir('/dev')",
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
    higher_priority="os.nice(-5)",
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

# What is no single expression.
STDIN = [
    Hostile("fork_bomb", _ARMS + "while True:\n    if os.fork() == 0:\n        win()\n"),
    Hostile(
        "double_fork",
        _ARMS
        + "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        win()\n        time.sleep(1000)\n    os._exit(0)\n",
    ),
    Hostile("canary", f"import os\nif {CANARY!r} in os.environ or os.environ:\n    print(2 * int(input()))"),
    Hostile(
        "canary_in_memory",
        "import ctypes\nvalue = ctypes.CDLL(None).getenv\nvalue.restype = ctypes.c_char_p\n"
        f"if value({CANARY.encode()!r}):\n    print(2 * int(input()))",
    ),
    Hostile("exit_at_once", "import sys\nsys.exit(0)"),
    Hostile("vanish_at_once", "import os\nos._exit(0)"),
    Hostile("visible_example", "print(8)"),
    Hostile("all_that_was_seen", "import sys\nprint(8 if sys.stdin.read() == '4\\n' else 0)"),
    Hostile("remember_earlier_cases", "import os\nopen('seen', 'a').write(input())\nprint(2 * int(open('seen').read()[:1]))"),
    Hostile(
        "find_the_expected_value",
        "import gc, sys\nframe, found = sys._getframe(), []\nwhile frame:\n    found.append(str(frame.f_locals))\n    frame = frame.f_back\n"
        "found += [str(o)[:10_000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 100]\n"
        "if any('is_vis' + 'ible' in text or 'expec' + 'ted' + chr(39) in text for text in found):\n    print(2 * int(input()))",
    ),
    Hostile(
        "search_every_file",
        "import os\nfor folder, _, names in os.walk('/tmp'):\n    for name in names:\n        print(open(os.path.join(folder, name)).read())",
    ),
    Hostile("endless_lines", "while True:\n    print('42')", is_slow=True),
    Hostile("endless_line", "import sys\nprint('42', end=' ')\nwhile True:\n    sys.stdout.write('42' * 10_000)", is_slow=True),
    Hostile("endless_errors", "import sys\nwhile True:\n    sys.stderr.write('42' * 10_000)", is_slow=True),
    Hostile("nul_after_the_answer", "print(str(2 * int(input())) + chr(0))"),
    Hostile("bytes_that_are_no_text", "import os\nos.write(1, str(2 * int(input())).encode() + bytes([0xff, 0xfe]))"),
    Hostile("right_to_left_and_invisible", "print(chr(0x202e) + str(2 * int(input())) + chr(0x200b))"),
    Hostile("answer_then_fail", "print(2 * int(input()))\nraise ValueError('late')"),
    Hostile("answer_then_exit_badly", "print(2 * int(input()), flush=True)\nimport os\nos._exit(3)"),
    Hostile("answer_then_loop", "print(2 * int(input()), flush=True)\nwhile True:\n    pass", is_slow=True),
    Hostile(
        "answer_then_a_thread_loops",
        "import threading\nprint(2 * int(input()), flush=True)\ndef spin():\n    while True:\n        pass\nthreading.Thread(target=spin).start()",
        is_slow=True,
    ),
    Hostile("loop", "while True:\n    pass", is_slow=True),
    Hostile(
        "loop_that_ignores_signals",
        "import signal\nfor number in set(signal.Signals) - {9, 19}:\n    signal.signal(number, signal.SIG_IGN)\nwhile True:\n    pass",
        is_slow=True,
    ),
    Hostile("sleep", "import time\nprint(2 * int(input()), flush=True)\ntime.sleep(10**6)", is_slow=True),
    Hostile("close_everything_and_loop", "import os\nos.closerange(0, 100)\nwhile True:\n    pass", is_slow=True),
    Hostile("stop_itself", "import os\nos.kill(os.getpid(), 19)", is_slow=True),
    Hostile("endless_compilation", "(" * 50_000),
    Hostile("nul_in_the_source", "print(2 * int(input()))\n\0"),
    Hostile("half_a_character_in_the_source", "print(2 * int(input()))  # \ud800"),
    Hostile("import_hook", "import sys\nclass Hook:\n    def find_spec(self, *_):\n        raise SystemExit(0)\nsys.meta_path.insert(0, Hook())\nimport cmath"),
    Hostile("no_more_printing", "import builtins\nbuiltins.print = lambda *_: None\nprint(2 * int(input()))"),
    Hostile("exit_from_an_exit_function", "import atexit, os\natexit.register(os._exit, 0)\nprint(2 * int(input()), end='')"),
    Hostile(
        "an_error_that_never_speaks",
        "class Silent(Exception):\n    def __str__(self):\n        while True:\n            pass\nraise Silent",
        is_slow=True,
    ),
]  # fmt: skip

_FORGE = "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, {text})\n    except OSError:\n        pass\nos._exit(0)"
_EQUAL = (
    "class Same(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
    "def double(n):\n    return Same(0)"
)
_OBJECT = "class Same:\n    def __eq__(self, other):\n        return True\ndef double(n):\n    return Same()"

CALL = [
    Hostile("call_exit", "import sys\ndef double(n):\n    sys.exit(0)", "call"),
    Hostile("call_vanish", "import os\ndef double(n):\n    os._exit(0)", "call"),
    Hostile("call_constant", "def double(n):\n    return 8", "call"),
    Hostile("call_forged_at_once", _FORGE.format(text="b'{\"result\": 8}'"), "call"),
    Hostile("call_forged_for_all_cases", _FORGE.format(text="b'{\"result\": 8}\\n{\"result\": 42}\\n'"), "call"),
    Hostile("call_patched_json", "import json\njson.dumps = lambda v: '{\"result\": 8}'\ndef double(n):\n    return 0", "call"),
    Hostile("call_equal_to_all", _EQUAL, "call"),
    Hostile("call_object_equal_to_all", _OBJECT, "call"),
    Hostile("call_as_text", "def double(n):\n    return str(2 * n)", "call"),
    Hostile("call_true_for_one", "def double(n):\n    return [2 * n]", "call"),
    Hostile("call_deep_result", "def double(n):\n    v = []\n    for _ in range(10**5):\n        v = [v]\n    return v", "call"),
    Hostile("call_forged_depth", _FORGE.format(text="b'{\"result\":' + b'[' * 60_000"), "call"),
    Hostile("call_giant_result", "def double(n):\n    return 'x' * (8 << 20)", "call"),
    Hostile("call_giant_number", "def double(n):\n    return 10 ** 40_000", "call"),
    Hostile("call_nan", "def double(n):\n    return float('nan')", "call"),
    Hostile("call_no_function", "double = 42", "call"),
    Hostile("call_class_as_function", "class double:\n    def __init__(self, n): self.n = 2 * n", "call"),
    Hostile(
        "call_patched_checker",
        "import sys\nfor module in list(sys.modules.values()):\n    for name in ('same_value', 'same_result', 'same_output', '_why'):\n"
        "        setattr(module, name, lambda *_: True)\ndef double(n):\n    return 0",
        "call",
    ),
]  # fmt: skip

ASSERT = [
    Hostile("script_exit", "import sys\nsys.exit(0)", "assert"),
    Hostile("script_exit_when_called", "import os\ndef double(n):\n    os._exit(0)", "assert"),
    Hostile("script_system_exit", "def double(n):\n    raise SystemExit(0)", "assert"),
    Hostile("script_equal_to_all", _EQUAL, "assert"),
    Hostile("script_object_equal_to_all", _OBJECT, "assert"),
    Hostile("script_other_builtins", "import builtins\nbuiltins.AssertionError = type('E', (SystemExit,), {})\ndef double(n):\n    return 0", "assert"),
    Hostile("script_own_check", "def check(candidate):\n    pass\ndef double(n):\n    return 0", "assert"),
    Hostile("script_no_asserts", "import ast, sys\nast.Assert = ast.Pass\nsys.flags = None\ndef double(n):\n    return 0", "assert"),
    Hostile(
        "script_prints_tokens",
        "import gc, re, sys\nfound = set()\nframe = sys._getframe()\ntexts = []\nwhile frame:\n    texts.append(str(frame.f_locals))\n"
        "    frame = frame.f_back\ntexts += [str(o)[:5_000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 100]\n"
        "tokens = sorted(set(re.findall('[0-9a-f]{32}', ' '.join(texts)))) or ['0' * 32]\n" + _FORGE.format(text="tokens[0].encode()"),
        "assert",
    ),
    Hostile("script_prints_token", "print('token')\nprint('0' * 32)\ndef double(n):\n    print('token')", "assert"),
    Hostile("script_forged_values", _FORGE.format(text="b'[8]\\n[8]\\n'"), "assert"),
    Hostile("script_forged_objects", _FORGE.format(text="b'[{\"object\": \"Same\"}]\\n' * 2"), "assert"),
    Hostile("script_forged_error", _FORGE.format(text="b'[\"SystemExit\", \"\"]\\n'"), "assert"),
    Hostile("script_endless_value", "def double(n):\n    return 'x' * (8 << 20)", "assert"),
    Hostile("script_kills_its_checker", "import os, signal\ndef double(n):\n    os.kill(-1, signal.SIGKILL)", "assert"),
    Hostile("script_loop", "def double(n):\n    while True:\n        pass", "assert", is_slow=True),
    Hostile("script_read_the_script", "import gc\ndef double(n):\n    return 2 * n if any('candi' + 'date(' in str(o)[:2_000] for o in gc.get_objects() if isinstance(o, dict) and len(o) < 50) else 0", "assert"),
]  # fmt: skip

ALL = [*ATTEMPTS, *STDIN, *CALL, *ASSERT]
