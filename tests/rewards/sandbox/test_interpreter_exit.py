"""Ends of programs: late output, replaced and closed streams, and exit statuses are those of a real interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.rewards.code_reward import CodeReward
from r1_lightning.rewards.sandbox.interpreter_exit import exit_status
from r1_lightning.rewards.sandbox.sandbox import Program, Sandbox
from tests.rewards.sandbox.hostile_programs import TESTS_OF
from tests.rewards.test_code_reward import judge

pytestmark = pytest.mark.usefixtures("isolated")

COLLECTING = (
    "import atexit, io, sys\nbuffer = io.StringIO()\nsys.stdout = buffer\n"
    "@atexit.register\ndef write():\n    sys.__stdout__.write(buffer.getvalue())\n"
)
# A well-known template: output collected in memory, written by a flush that the interpreter calls at its end.
FAST = """
import io, os, sys
class FastIO(io.IOBase):
    def __init__(self, file):
        self.buffer, self._fd = io.BytesIO(), file.fileno()
        self.write = self.buffer.write
    def flush(self):
        os.write(self._fd, self.buffer.getvalue())
        self.buffer.truncate(0), self.buffer.seek(0)
class IOWrapper(io.IOBase):
    def __init__(self, file):
        self.buffer = FastIO(file)
        self.flush = self.buffer.flush
        self.write = lambda s: self.buffer.write(s.encode('ascii'))
sys.stdout = IOWrapper(sys.stdout)
print(2 * int(sys.stdin.readline()))
"""
HONEST = {
    "exit": "print(2 * int(input()))\nexit()",
    "exit_0": "print(2 * int(input()))\nexit(0)",
    "exit_false": "print(2 * int(input()))\nexit(False)",
    "quit": "def main():\n    print(2 * int(input()))\n    quit()\nmain()\nprint('no')",
    "exit_from_a_loop": "import sys\nfor line in sys.stdin:\n    print(2 * int(line))\n    exit()",
    "exit_that_is_caught": "try:\n    exit()\nexcept SystemExit:\n    print(2 * int(open(0, closefd=False).read()))",
    "exit_by_another_name": "stop = exit\nprint(2 * int(input()))\nstop()",
    "builtins_exit": "import builtins\nprint(2 * int(input()))\nbuiltins.exit()",
    "exit_of_ones_own": "def exit():\n    print(2 * int(input()))\nexit()",
    "collected": COLLECTING + "print(2 * int(input()))",
    "collected_then_exit": COLLECTING + "print(2 * int(input()))\nexit()",
    "collected_with_sys_exit": COLLECTING + "print(2 * int(input()))\nsys.exit()",
    "collected_then_put_back": "import io, sys\nsys.stdout = io.StringIO()\n"
    "print(2 * int(input()))\nsys.__stdout__.write(sys.stdout.getvalue())",
    "written_by_the_buffer": "import atexit, sys\nlines = []\natexit.register(lambda: sys.stdout.buffer.write(b''.join(lines)))\n"
    "lines.append(b'%d' % (2 * int(input())))",
    "fast": FAST,
    "closed": "import sys\nprint(2 * int(input()))\nsys.stdout.close()",
    "closed_input": "import sys\nprint(2 * int(input()))\nsys.stdin.close()",
    "closed_by_with": "import sys\nwith sys.stdout as out:\n    out.write(str(2 * int(input())))",
    "closed_below": "import os\nprint(2 * int(input()), flush=True)\nos.close(1)",
    "no_stdout": "import sys\nprint(2 * int(input()))\nsys.stdout = None",
    "no_stdout_at_all": "import sys\nprint(2 * int(input()))\ndel sys.stdout",
    "detached": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), newline='')\nprint(2 * int(input()))",
    "a_file_never_closed": "out = open(1, 'w')\nprint(2 * int(input()), file=out)",
    "a_file_in_an_object": "class Out:\n    file = open(1, 'wb')\nheld = [Out()]\nOut.file.write(b'%d' % (2 * int(input())))",
    "a_file_by_number": "import os\nout = os.fdopen(os.dup(1), 'w')\nout.write(str(2 * int(input())))",
    "an_object_that_prints_when_it_goes": "class Last:\n    def __del__(self):\n"
    "        print(2 * number)\nnumber = int(input())\nlast = Last()",
    "an_exit_function_that_fails": "import atexit\natexit.register(lambda: 1 / 0)\nprint(2 * int(input()))",
    "stdin_by_name": "print(2 * int(open('/dev/stdin').readline()))",
    "stdin_by_name_as_sys_stdin": "import sys\nsys.stdin = open('/dev/stdin')\nprint(2 * int(input()))",
    "stdin_in_binary": "print(2 * int(open('/dev/stdin', 'rb').read()))",
    "stdin_by_number": "print(2 * int(open(0).read()))",
    "stdin_by_the_buffer": "import sys\nprint(2 * int(sys.stdin.buffer.read()))",
    "stdin_by_os": "import os\nprint(2 * int(os.read(0, os.fstat(0).st_size or 99)))",
    "stdin_as_memory": "import mmap\nprint(2 * int(mmap.mmap(0, 0, prot=mmap.PROT_READ)[:]))",
    "stdin_by_fileinput": "import fileinput\nprint(2 * int(next(fileinput.input())))",
    "stdin_by_path": "from pathlib import Path\nprint(2 * int(Path('/dev/stdin').read_text()))",
    "stdout_by_name": "print(2 * int(input()), file=open('/dev/stdout', 'w'))",
    "stderr_and_null": "import os\nprint('x', file=open('/dev/stderr', 'w'))\n"
    "print('x', file=open(os.devnull, 'w'))\nprint(2 * int(input()))",
    "random_bytes": "print(2 * int(input()) * (len(open('/dev/urandom', 'rb').read(4)) == 4))",
}  # fmt: skip
# Right output and a status that is not 0 (a run-time error for contest judges), or output that an interpreter would lose as well.
WRONG = {
    "exit_1": "print(2 * int(input()))\nexit(1)",
    "quit_with_text": "print(2 * int(input()))\nquit('done')",
    "exit_minus_1": "print(2 * int(input()))\nexit(-1)",
    # `exit` closes standard input first
    "exit_in_a_thread": "import threading\nthread = threading.Thread(target=exit)\nthread.start()\n"
    "thread.join()\nprint(2 * int(input()))",
    "sys_exit_2": "import sys\nprint(2 * int(input()))\nsys.exit(2)",
    "gone_before_it_is_written": "import os\nprint(2 * int(input()))\nos._exit(0)",
    "collected_and_gone": COLLECTING + "import os\nprint(2 * int(input()))\nos._exit(0)",
    "collected_and_never_written": "import io, sys\nsys.stdout = io.StringIO()\nprint(2 * int(input()))",
    "a_stream_that_fails": "import sys\nprint(2 * int(input()), flush=True)\nclass Out:\n"
    "    def flush(self):\n        raise OSError\nsys.stdout = Out()",
}  # fmt: skip


@pytest.fixture(scope="module")
def reward() -> CodeReward:
    return CodeReward(workers=1)


@pytest.mark.parametrize("name", HONEST)
def test_honest_ends_are_right(reward: CodeReward, name: str) -> None:
    verdict = judge(reward, HONEST[name], TESTS_OF["stdin"])
    assert verdict.score == 1.0, verdict


@pytest.mark.parametrize("name", WRONG)
def test_ends_that_a_judge_calls_errors_are_wrong(reward: CodeReward, name: str) -> None:
    assert judge(reward, WRONG[name], TESTS_OF["stdin"]).score == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HONEST, *WRONG])
def test_a_real_interpreter_ends_the_same(name: str, tmp_path: Path) -> None:
    source = (HONEST | WRONG)[name]
    (tmp_path / "given").write_bytes(b"21\n")
    with (tmp_path / "given").open("rb") as given:
        real = subprocess.run([sys.executable, "-c", source], stdin=given, capture_output=True, timeout=60, env={})
    with Sandbox(Program("stdin", source)) as box:
        ours = box.run("21\n")
    assert ours.stdout == real.stdout.decode()
    assert ours.ended == (f"status {real.returncode}" if real.returncode else "")


def test_exit_status() -> None:
    codes = {None: 0, 0: 0, 1: 1, 255: 255, 256: 0, -1: 255, "text": 1, "": 1}
    assert {code: exit_status(code) for code in codes} == codes and (exit_status(False), exit_status(True)) == (0, 1)
