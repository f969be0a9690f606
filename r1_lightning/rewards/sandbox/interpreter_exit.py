"""Ends a sandboxed program as a Python interpreter would, although the process is a fork of another program.

A fork ends with `os._exit`, which runs no exit handlers and flushes nothing, so this module repeats the interpreter's exit steps
in their order: wait for threads, run atexit handlers, flush standard output (which the program may have closed or replaced),
delete the program's objects, and with them flush the files that it never closed. Contest programs need all of these: templates
collect output in a `StringIO` and write it to `sys.__stdout__` at exit, or print to `open(1, "w")`.

`exit` and `quit` come from the module `site`, which is not loaded here, so this module defines them. As in contests, an exit status
other than 0, from `exit(1)` or an error, makes the program wrong, whatever it printed.

Standard library only: this runs inside the sandbox.
"""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import gc
import io
import sys
import threading
from contextlib import suppress
from typing import Any

CANNOT_FLUSH = 120  # Python's own exit status if output could not be written
_MANY_ENDS = 2  # flush rounds, because flushing a wrapper may fill a buffer below it


def add_exits() -> None:
    """Define `exit` and `quit` as the module `site` does."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))


def finish(is_program: bool = False) -> int:
    """Run the interpreter's exit steps and return the exit status; `is_program` is True if the answer is `__main__`."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    status = 0 if _flushed(getattr(sys, "stdout", None)) else CANNOT_FLUSH
    if is_program:
        sys.stdout = sys.__stdout__
        _flush_files()  # first, because a collection may close what a file writes to before the file
        del sys.modules["__main__"]  # the only reference to the program's names
        gc.collect()
        _flush_files()
    _flushed(sys.__stdout__)
    return status


def exit_status(code: Any) -> int:
    """Return the exit status of `SystemExit(code)`: None and False give 0, text gives 1."""
    return 0 if code is None else code & 0xFF if isinstance(code, int) else 1


def _flushed(stream: Any) -> bool:
    """Flush `stream`; False if data could not be written. A closed or missing stream counts as flushed."""
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException:
        return False
    return True


def _flush_files() -> None:
    """Flush all files that are still open, whichever object holds them."""
    for _ in range(_MANY_ENDS):
        for held in gc.get_objects():
            if isinstance(held, (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)):
                with suppress(Exception):
                    held.flush()
