"""The sandbox from outside: outcomes of cases, cleanup after a killed parent, and messages on a machine without isolation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1_lightning.rewards.sandbox import sandbox
from r1_lightning.rewards.sandbox.sandbox import CLOCK, CPU, DIED, OUTPUT, PROGRAM, Limits, Outcome, Program, Sandbox
from r1_lightning.types.errors import InvalidInput
from tests.conftest import without_isolation
from tests.rewards.test_code_reward import all_gone, sandboxes

pytestmark = pytest.mark.usefixtures("isolated")

# What an answer can find out about where it is.
SURROUNDINGS = """
import os, sys
status = os.getresuid() + os.getresgid()
print(sorted(os.listdir('/')), dict(os.environ), os.getcwd(), os.listdir('.'), os.getpid(), os.getppid(), status, os.getgroups())
print(os.uname().nodename, sys.argv, [os.path.exists(p) for p in ('/proc', '/dev', '/etc', '/sys', '/home', '/var')])
"""


DEVICES = """
import os, stat
for folder, _, names in os.walk('/dev'):
    for name in sorted(names):
        path = os.path.join(folder, name)
        status = os.stat(path)
        kind, rights = stat.filemode(status.st_mode)[0], oct(status.st_mode & 0o777)[2:]
        print(path, kind + rights, status.st_rdev and os.major(status.st_rdev))
"""


def one(program: Program, *given: str, limits: Limits | None = None, isolated: bool = True) -> list[Outcome]:
    with Sandbox(program, limits, isolated) as box:
        return [box.run(text) for text in given]


def test_isolation_is_there() -> None:
    assert sandbox.isolation() == sandbox.Isolation(True, "")


def test_surroundings() -> None:
    (outcome,) = one(Program("stdin", SURROUNDINGS), "")
    first, second = outcome.stdout.splitlines()
    top = set(eval(first.split("]")[0] + "]"))
    library = Path(os.path.realpath(os.__file__)).parts[1]
    assert {"dev", "tmp"} <= top <= {"dev", "tmp", "lib", "lib32", "lib64", "usr", "nix", library}
    assert first.split("] ", 1)[1] == "{} /tmp [] 2 1 (1, 1, 1, 1, 1, 1) []"
    assert second == "sandbox ['answer.py'] [False, True, False, False, False, False]"


def test_devices() -> None:
    """Those that hold nothing (major number 1), and the case's own streams, to be read only and to be written only."""
    (outcome,) = one(Program("stdin", DEVICES), "x")
    assert outcome.stdout.splitlines() == [
        "/dev/null c666 1", "/dev/stderr c666 1", "/dev/stdin -444 0", "/dev/stdout p222 0", "/dev/urandom c666 1",
        "/dev/zero c666 1", "/dev/case/stdin -444 0", "/dev/case/stdout p222 0",
    ]  # fmt: skip
    forbidden = "\n".join(
        f"try:\n    {line}\n    print({line!r})\nexcept OSError:\n    pass"
        for name in ("stdin", "stdout", "case/stdin", "case/stdout", "null", "urandom")
        for line in (
            f"os.chmod('/dev/{name}', 0o777)",
            f"os.unlink('/dev/{name}')",
            f"os.utime('/dev/{name}')",
            *([f"open('/dev/{name}', 'r+')"] if name.endswith(("stdin", "stdout")) else []),
        )
    )
    more = "for name in ('x', 'case/x'):\n    try:\n        open('/dev/' + name, 'w')\n        print(name)\n"
    more += "    except OSError:\n        pass"
    assert one(Program("stdin", f"import os\n{forbidden}\n{more}"), "") == [Outcome("")]
    (called,) = one(Program("call", "def f():\n    return open('/dev/stdin').read()", entry_point="f"), "[]")
    assert "FileNotFoundError" in called.report  # a function has no standard input


# Of the clock's limit to the CPU's: so much that CPU time decides, however busy the machine is.
ON_ANY_MACHINE = 100
CASE = {"given": "", "cpu_s": 3000, "clock_s": 9000}  # as init is sent it


def test_outcomes_of_each_kind() -> None:
    right, wrong = one(Program("stdin", "print(2 * int(input()))"), "4", "x")
    assert right == Outcome("", "8\n", "") and wrong.ended == "status 1" and "ValueError" in wrong.report
    call = Program("call", "def f(a, b):\n    print('noise')\n    return a, b", entry_point="f")
    assert one(call, "[1, [2]]") == [Outcome("", "", '{"result": [1, [2]]}')]
    with Sandbox(Program("assert", "def f(a):\n    return a", entry_point="f")) as box:
        assert box.run(script="assert f(1) == 1", token="abc") == Outcome("", "", "abc")
        assert box.run(script="assert f(1) == 2", token="abc").report == '{"error": "AssertionError"}'
        assert box.run(script="raise SystemExit", token="abc") == Outcome("", "", "")  # no token without the end


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(cpu_s=1, output_bytes=1_000)
    program = Program(
        "stdin",
        "import time\nwork = {'cpu': 'while 1: 0', 'out': 'print(9 * 10**999)', 'clock': 'time.sleep(999)'}\nexec(work[input()])",
    )
    (slept,) = one(program, "clock", limits=limits)
    assert slept.ended == CLOCK
    monkeypatch.setattr(sandbox, "CLOCK_FACTOR", ON_ANY_MACHINE)
    assert [outcome.ended for outcome in one(program, "cpu", "out", limits=limits)] == [CPU, OUTPUT]
    enough = "x = bytearray(120 << 20)\nprint(len(x))"
    assert one(Program("stdin", enough), "") == [Outcome("", f"{120 << 20}\n", "")]
    (outcome,) = one(Program("stdin", enough), "", limits=Limits(memory_mb=128))
    assert "MemoryError" in outcome.report


def test_the_limit_of_all_cases_together(monkeypatch: pytest.MonkeyPatch) -> None:
    spend = "import time\nlimit_s = float(input())\nwhile time.process_time() < limit_s:\n    pass\nprint('done')"
    with Sandbox(Program("stdin", spend), Limits(cpu_s=2, program_cpu_s=3)) as box:
        first = box.run("1.2")
        assert first == Outcome("", "done\n") and 1.2 <= first.cpu_s < 1.8
        assert box._left()[0] == 2  # of 1.2 to 1.8 s, in whole seconds
        assert box.run("9").ended == PROGRAM  # stopped by its own limit of 2 s, after which more than 3 s are gone
        assert box.run("0") == Outcome(PROGRAM)
    monkeypatch.setattr(sandbox, "CLOCK_FACTOR", 0.5)
    with Sandbox(Program("stdin", "import time\ntime.sleep(float(input()))"), Limits(cpu_s=2, program_cpu_s=2)) as box:
        assert [box.run("0.6").ended, box.run("9").ended, box.run("0").ended] == ["", PROGRAM, PROGRAM]


def test_cpu_time_is_that_of_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CLOCK_FACTOR", ON_ANY_MACHINE)
    spend = (  # outside of the interpreter's lock, on as many processors as there are
        "import hashlib, threading\nfor _ in range(8):\n"
        "    threading.Thread(target=hashlib.pbkdf2_hmac, args=('sha256', b'', b'', 10**8)).start()"
    )
    (outcome,) = one(Program("stdin", spend), "", limits=Limits(cpu_s=1))
    assert outcome.ended == CPU and 0.9 <= outcome.cpu_s < 3  # SIGXCPU after 1 s, SIGKILL after 2


def test_a_dead_sandbox_is_said_and_stays_dead() -> None:
    with Sandbox(Program("stdin", "print(1)")) as box:
        os.killpg(box._process.pid, signal.SIGKILL)
        assert [box.run(""), box.run("")] == [Outcome(DIED), Outcome(DIED)]


def test_closing_ends_a_case_that_runs() -> None:
    with Sandbox(Program("stdin", "while True: pass")) as box:
        box._send(CASE)
        while len(sandboxes()) < 3:  # the starter, init, the answer
            time.sleep(0.01)
    assert all_gone()


@pytest.mark.parametrize("isolated", [True, False])
def test_a_killed_parent_leaves_nothing_behind(repo_root: Path, isolated: bool) -> None:
    code = (
        "from r1_lightning.rewards.sandbox.sandbox import *\n"
        f"box = Sandbox(Program('stdin', 'while True: pass'), Limits(cpu_s=3000), {isolated})\n"
        f"box._send({CASE})\nprint('running', flush=True)\nimport time\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=repo_root, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "running\n"
    whole = 3 if isolated else 2
    deadline_s = time.monotonic() + 60
    while len(sandboxes(parent.pid)) < whole and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert len(sandboxes(parent.pid)) == whole
    parent.kill()
    parent.communicate()
    while sandboxes(parent.pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert sandboxes(parent.pid) == []


def test_an_answer_whose_maker_has_just_ended_does_not_begin(repo_root: Path, tmp_path: Path) -> None:
    """Between the fork and the call that binds it to its maker the maker may end; then nobody would ever end the answer."""
    code = (
        "import os, sys\nfrom r1_lightning.rewards.sandbox import init\n"
        "request = {'cpu_s': 1, 'memory_mb': 512, 'tmp_mb': 1}\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        f"    init._enter(request, False, {str(tmp_path)!r}, MAKER)\n"
        "    os._exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    for maker, status in (("os.getppid()", "3"), ("1", "0")):  # the real one, and one that it does not have
        program = code.replace("MAKER", maker)
        done = subprocess.run([sys.executable, "-c", program], cwd=repo_root, stdout=subprocess.PIPE, text=True)
        assert done.stdout == f"{status}\n"


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = sandbox.isolation.__wrapped__

    def refuse(process_id: int) -> None:
        raise PermissionError(1, "user namespaces are forbidden\nhere")

    monkeypatch.setattr(sandbox.namespaces, "write_ids", refuse)
    found = fresh()
    assert not found.available and "user namespaces are forbidden here" in found.missing and "\n" not in found.missing
    monkeypatch.undo()
    monkeypatch.setattr(sandbox, "_LOOK_OUT", "print('here [1]', end='')")
    assert "let a program out" in fresh().missing
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    assert fresh() == sandbox.Isolation(False, "programs can only be isolated on Linux, and this is darwin")


@pytest.mark.parametrize(("field", "value"), [("cpu_s", 0), ("cpu_s", 1.5), ("cpu_s", True), ("memory_mb", 100)])
def test_limits_are_checked(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match="limit"):
        Limits(**{field: value})


def test_ci_fails_where_a_person_only_sees_a_skip(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'if [ "$(uname)" = Linux ]; then export R1_REQUIRE_SANDBOX=1; fi' in (repo_root / ".ci/run").read_text()
    monkeypatch.delenv("R1_REQUIRE_SANDBOX", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no isolation here"):
        without_isolation("no isolation here")
    monkeypatch.setenv("R1_REQUIRE_SANDBOX", "1")
    with pytest.raises(pytest.fail.Exception, match="no isolation here"):
        without_isolation("no isolation here")
