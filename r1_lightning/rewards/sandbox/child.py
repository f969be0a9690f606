"""The processes of one test case inside a sandbox: the answer, and the script that tests it.

Each function here is the complete run of one process that `init` has forked and stripped of its privileges. A process that executes
an answer is hostile from its first line: it may forge everything it reports. But it cannot know the expected values, because they
were never in this process or in one of its ancestors.

- `answer_stdin`: the answer is a program that reads its input and prints. Its output is judged outside.
- `answer_call`: one function is called; its value is reported as JSON and judged outside.
- `answer_calls` and `check_script`: a test script with its expected values runs in one process, the answer in another, and
  calls pass between them as data (`transfer`). When the script has reached its end, its process reports a token that no other
  process has.

Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import random
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from r1_lightning.rewards.sandbox import allowed_packages, transfer
from r1_lightning.rewards.sandbox.interpreter_exit import exit_status, finish

REPORT_FD, CALLS_FD, RETURNS_FD = 3, 4, 5  # a process's pipes; 0, 1 and 2 are the standard streams
LINE_BYTES = 4 * 2**20  # one call's arguments or value
INT_DIGITS = 50_000  # the longest integer that may become text (Python's own limit is 4,300)
_SHOWN_CHARS = 200
# Errors that end an iteration in Python: raised by a call inside `map`, `zip` or `iter(f, x)` they would end a loop over asserts
# early, and the test would pass.
_SILENT = (StopIteration, StopAsyncIteration)


def answer_stdin(request: Mapping[str, Any]) -> None:
    """Run the answer as a program."""

    def run() -> None:
        _load(request, "__main__")

    _report_errors(run)


def answer_call(request: Mapping[str, Any], given: str) -> None:
    """Call the entry point with the JSON array `given` and report {"result": value}."""

    def call() -> str:
        function = _function(_load(request, "answer"), request["entry_point"])
        return json.dumps({"result": function(*json.loads(given))}, default=transfer.plain)

    _report_errors(call)


def answer_calls(request: Mapping[str, Any]) -> None:
    """Serve calls until the pipe closes: a line [name, arguments, keywords] in, a line [value] or [error, text] out."""
    calls, returns = os.fdopen(CALLS_FD, "rb"), os.fdopen(RETURNS_FD, "wb", buffering=0)
    problem: BaseException | None = None
    namespace: dict[str, Any] = {}
    try:
        namespace = _load(request, "answer")
    except BaseException as error:
        problem = error
    while line := calls.readline():
        try:
            if problem is not None:
                raise problem
            name, arguments, keywords = transfer.load(line)
            reply = transfer.dump([_function(namespace, name)(*arguments, **keywords)])
        except BaseException as error:
            reply = transfer.dump([type(error).__name__, _one_line(error)])
        returns.write(reply.encode("ascii") + b"\n")
    os._exit(0)


def check_script(request: Mapping[str, Any], script: str, token: str) -> None:
    """Run the setup, the script, and its `check` if both `check` and an entry point exist; then report the token."""

    def check() -> str:
        calls, returns = os.fdopen(CALLS_FD, "wb", buffering=0), os.fdopen(RETURNS_FD, "rb")
        namespace: dict[str, Any] = {"__name__": "tests"}
        exec(compile(request["setup"], "setup.py", "exec"), namespace)
        entry_point = request["entry_point"]
        tree = ast.parse(script, "tests.py")
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        # A name in the answer can neither shadow a builtin nor a name of the setup.
        for name in sorted(used - set(dir(builtins)) - set(namespace)) + [entry_point] * bool(entry_point):
            namespace[name] = _Remote(name, calls, returns)
        exec(compile(tree, "tests.py", "exec"), namespace)
        if entry_point and "check" in namespace:
            namespace["check"](namespace[entry_point])
        return token

    _report_errors(check)


class _Program(types.ModuleType):
    """The answer as a module."""


class _Remote:
    """A proxy in the script's process for a function of the answer."""

    def __init__(self, name: str, calls: IO[bytes], returns: IO[bytes]) -> None:
        self._name, self._calls, self._returns = name, calls, returns

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self._calls.write(transfer.dump([self._name, arguments, keywords]).encode("ascii") + b"\n")
        line = self._returns.readline(LINE_BYTES)
        if not line.endswith(b"\n"):
            raise RuntimeError("the answer ended, or returned too much" if line else "the answer ended")
        reply = transfer.load(line)
        if isinstance(reply, list) and len(reply) == 1:
            return reply[0]
        kind, text = reply
        raise _error(str(kind), text)


def _error(name: str, text: str) -> Exception:
    """Recreate the answer's error for a script that may expect it; an error that would end an iteration becomes another type."""
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, _SILENT):
        with suppress(TypeError):  # exception classes that require more than a text
            return known(text)
    return RuntimeError(text)


def _load(request: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Execute setup and answer as the module `name`, in an environment that reveals nothing and is always the same."""
    os.environ.clear()
    sys.argv[:] = ["answer.py"]
    sys.set_int_max_str_digits(INT_DIGITS)
    random.seed(0)
    allowed_packages.begin_alike()
    module = _Program(name)
    sys.modules[name] = module
    for part in ("setup", "answer"):
        exec(compile(request[part], f"{part}.py", "exec"), module.__dict__)
    return module.__dict__


def _function(namespace: Mapping[str, Any], name: str) -> Callable[..., Any]:
    """Return the function `name`, or the method `name` of a class `Solution` (LiveCodeBench's form)."""
    if name in namespace:
        function = namespace[name]
    else:
        function = getattr(namespace["Solution"](), name, None) if "Solution" in namespace else None
    if not callable(function):
        raise NameError(f"the answer defines no function {name}")
    return function


def _report_errors(body: Callable[[], str | None]) -> None:
    """Run `body`, then the interpreter's exit steps, report, and end this process."""
    code, report = 0, None
    try:
        try:
            report = body()
        except SystemExit as ending:
            code, report = exit_status(ending.code), None
        code = finish(is_program=isinstance(sys.modules.get("__main__"), _Program)) or code
    except BaseException as error:
        code, report = 1, json.dumps({"error": _one_line(error)})
    unsent = memoryview((report or "").encode("ascii", "replace"))
    while unsent:
        unsent = unsent[os.write(REPORT_FD, unsent) :]
    os._exit(code)


def _one_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error)[:_SHOWN_CHARS].split())
    except BaseException:
        text = "?"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
