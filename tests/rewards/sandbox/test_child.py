"""The processes of a case, run here in a fork: reports of each kind, names that a script may use, and exit steps."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from r1_lightning.rewards.sandbox import child, interpreter_exit
from r1_lightning.rewards.sandbox.child import CALLS_FD, REPORT_FD, RETURNS_FD

STOPPED = '{"error": "RuntimeError: StopIteration"}'
GENERATED = '{"error": "TypeError: TypeError: a value of type generator is not data"}'
ASYNCHRONOUS = (
    "import asyncio\nclass Values:\n    def __aiter__(self): return self\n    async def __anext__(self): return f(1)\n"
    "async def run():\n    async for value in Values(): assert value == 8\nasyncio.run(run())"
)
REQUEST = {"setup": "", "answer": "", "entry_point": "f"}


def fork(body: Callable[[], None], files: Mapping[int, int]) -> int:
    """A process that runs `body` with `files` (its own number -> ours)."""
    pid = os.fork()
    if pid == 0:
        try:
            high = {own: os.dup(os.dup(os.dup(os.dup(ours)))) for own, ours in files.items()}
            high = {own: __import__("fcntl").fcntl(fd, 0, 50) for own, fd in high.items()}  # F_DUPFD: out of the way
            for own, ours in high.items():
                os.dup2(ours, own)
            os.closerange(max(files) + 1, 300)
            body()
        finally:
            os._exit(99)
    return pid


@pytest.fixture(autouse=True, scope="module")
def exits() -> None:
    interpreter_exit.add_exits()  # as init does


def reported(body: Callable[[], None], files: Mapping[int, int] | None = None) -> tuple[int, str]:
    """Exit code and report of a process that runs `body`."""
    read, write = os.pipe()
    gc.freeze()  # a program's end sweeps its objects, and not those of this test process
    pid = fork(body, {REPORT_FD: write, **(files or {})})
    gc.unfreeze()
    os.close(write)
    report = b"".join(iter(lambda: os.read(read, 65_536), b"")).decode()
    os.close(read)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), report


def request(**changes: Any) -> dict[str, Any]:
    return {**REQUEST, **changes}


@pytest.mark.parametrize(
    ("answer", "code", "report"),
    [
        ("x = 1", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(256 + 7)", 7, ""),
        ("raise SystemExit('sorry')", 1, ""),
        ("import os\nos._exit(4)", 4, ""),
        ("1 / 0", 1, '{"error": "ZeroDivisionError: division by zero"}'),
        ("raise ValueError('a\\n  b' * 300)", 1, None),
        ("assert __name__ == '__main__' and KNOWN == 3", 0, ""),
        ("from __future__ import annotations\nx: nothing = 1", 0, ""),
        ("class E(Exception):\n    def __str__(self):\n        raise self\nraise E", 1, '{"error": "E: ?"}'),
        ("(", 1, None),
        ("import atexit\natexit.register(print)", 0, ""),
        ("exit()", 0, ""),
        ("quit(0)", 0, ""),
        ("exit(3)", 3, ""),
        ("exit('sorry')", 1, ""),
        ("import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(0.1), os._exit(5))).start()", 5, ""),
    ],
)
def test_programs_end_as_python_programs_do(answer: str, code: int, report: str | None) -> None:
    found = reported(lambda: child.answer_stdin(request(answer=answer, setup="KNOWN = 3")))
    assert found[0] == code
    if report is None:
        assert len(found[1]) < 300 and "\n" not in found[1] and "Error: " in json.loads(found[1])["error"]
    else:
        assert found[1] == report


@pytest.mark.parametrize(
    ("answer", "given", "report"),
    [
        ("def f(a, b): return a + b", "[1, 2]", '{"result": 3}'),
        ("class Solution:\n    def f(self, a): return {a: (a,)}", "[1]", '{"result": {"1": [1]}}'),
        ("f = lambda: 10 ** 5000", "[]", '{"result": 1' + "0" * 5000 + "}"),
        ("def f(): return {1}", "[]", '{"error": "TypeError: a value of type set is not data"}'),
        (
            "import types\nclass A:\n    __module__, shape = 'numpy', ()\n    def item(self): return self\ndef f(): return A()",
            "[]",
            '{"error": "TypeError: a value of type A is not data"}',
        ),
        ("g = 1", "[]", '{"error": "NameError: the answer defines no function f"}'),
        ("if __name__ == '__main__':\n    1 / 0\ndef f(): return 1", "[]", '{"result": 1}'),
    ],
)
def test_calls_report_their_value(answer: str, given: str, report: str) -> None:
    assert reported(lambda: child.answer_call(request(answer=answer), given))[1] == report


@pytest.mark.parametrize(
    ("answer", "script", "report"),
    [
        ("def f(a): return a", "assert f((1, {2})) == (1, {2})", "token"),
        ("def f(a): return a", "def check(c):\n    assert c(1) == 2", '{"error": "AssertionError"}'),
        ("def f(a, *, b): return a + b\ndef g(): return 5", "assert f(1, b=2) == 3 and g() == 5", "token"),
        ("def f(): raise KeyError('k')", "try:\n    f()\nexcept KeyError:\n    pass", "token"),
        ("class E(Exception): pass\ndef f(): raise E('k')", "try:\n    f()\nexcept RuntimeError:\n    pass", "token"),
        ("1 / 0", "f()", '{"error": "ZeroDivisionError: ZeroDivisionError: division by zero"}'),
        ("def f(): return f", "f()", '{"error": "TypeError: TypeError: a value of type function is not data"}'),
        ("def g(): pass", "f()", '{"error": "NameError: NameError: the answer defines no function f"}'),
        # What ends an iteration silently would end a loop over asserts: it comes as another error.
        ("def f(n): raise StopIteration", "for n, m in zip([1], map(f, [1])): assert n == m", STOPPED),
        (
            "def f(n): raise StopIteration('s')",
            "assert list(map(f, [1])) == []",
            '{"error": "RuntimeError: StopIteration: s"}',
        ),
        ("def f(n): raise StopIteration", "assert all(map(f, [1, 2]))", STOPPED),
        ("def f(n): raise StopIteration", "assert not any(filter(f, [1, 2]))", STOPPED),
        ("def f(n): raise StopIteration", "assert set(map(f, [1])) <= {8}", STOPPED),
        ("def f(): raise StopIteration", "for value in iter(f, 8): assert value == 8", STOPPED),
        ("def f(n): raise StopIteration", "assert next(map(f, [1]), 8) == 8", STOPPED),
        ("def f(n): return next(iter([]))", "import itertools\nassert [*itertools.starmap(f, [(1,)])] == []", STOPPED),
        ("def f(n): raise StopIteration", "assert sum(map(f, [1]), 8) == 8", STOPPED),
        ("def f(n): raise StopIteration", "assert dict(zip('a', map(f, [1]))) == {}", STOPPED),
        ("class E(StopIteration): pass\ndef f(n): raise E", "list(map(f, [1]))", '{"error": "RuntimeError: E"}'),
        ("def f(n): raise StopAsyncIteration", ASYNCHRONOUS, '{"error": "RuntimeError: StopAsyncIteration"}'),
        ("def f(n): raise GeneratorExit", "assert all(f(n) for n in [1])", '{"error": "RuntimeError: GeneratorExit"}'),
        ("def f(n): raise SystemExit", "assert list(map(f, [1])) == []", '{"error": "RuntimeError: SystemExit"}'),
        ("def f(n): raise KeyboardInterrupt", "list(map(f, [1]))", '{"error": "RuntimeError: KeyboardInterrupt"}'),
        ("def f(n): b''.decode('x' + chr(0))", "try:\n    f(1)\nexcept ValueError:\n    pass", "token"),
        ("def f(n): yield n", "assert list(map(f, [1])) == [8]", GENERATED),
        ("def f(n): exit()", "f(1)", '{"error": "RuntimeError: SystemExit: None"}'),
        ("KNOWN = 9\ndef len(x): return 1", "assert KNOWN == 3 and len('ab') == 2", "token"),
    ],
)
def test_scripts_ask_and_report_their_token(answer: str, script: str, report: str) -> None:
    given = request(answer=answer, setup="KNOWN = 3")
    calls, returns = os.pipe(), os.pipe()
    other = fork(lambda: child.answer_calls(given), {CALLS_FD: calls[0], RETURNS_FD: returns[1]})
    os.close(calls[0])
    os.close(returns[1])
    code, found = reported(
        lambda: child.check_script(given, script, "token"), {CALLS_FD: calls[1], RETURNS_FD: returns[0]}
    )
    os.close(calls[1])
    os.close(returns[0])
    os.waitpid(other, 0)
    assert found == report and code == int(report != "token")
