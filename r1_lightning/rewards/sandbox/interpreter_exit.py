"""How a sandboxed program ends: as an interpreter ends, in a process that is a fork in the middle of another program.

A fork leaves by `os._exit`, which runs nothing and flushes nothing, so what an interpreter does at its end is done here, in its
order: wait for threads, run what was registered with atexit, flush standard output (closed or replaced, as a program may have left
it), let go of the program's own objects, and with them flush the files that it never closed. Contest programs need
all of it: templates collect output in a `StringIO` and write it to `sys.__stdout__` at exit, or print to `open(1, "w")`.

`exit` and `quit` are not Python's own but those of the module `site`, which is not loaded here; programs use them all the same.
How a program ends counts as contest judges have it: a status other than 0, from `exit(1)` or an error, is wrong whatever was
printed.

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

CANNOT_FLUSH = 120  # Python's own status where output could not be written
_MANY_ENDS = 2  # what a flushed wrapper writes may lie in a buffer below it


def add_exits() -> None:
    """`exit` and `quit`, as the module `site` makes them."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))


def finish(is_program: bool = False) -> int:
    """Do what an interpreter does at its end; 0, or the status that this makes of it. `is_program`: the answer is `__main__`."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    status = 0 if _flushed(getattr(sys, "stdout", None)) else CANNOT_FLUSH
    if is_program:
        sys.stdout = sys.__stdout__
        _flush_files()  # first, because a collection may close what a file writes to before the file
        del sys.modules["__main__"]  # nothing else holds the program's names
        gc.collect()
        _flush_files()
    _flushed(sys.__stdout__)
    return status


def exit_status(code: Any) -> int:
    """The status of `SystemExit(code)`: none and False are 0, text is 1."""
    return 0 if code is None else code & 0xFF if isinstance(code, int) else 1


def _flushed(stream: Any) -> bool:
    """Whether nothing was left that could not be written; a stream that is closed or gone is none of ours."""
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException:
        return False
    return True


def _flush_files() -> None:
    """Flush what is still open, by whoever holds it."""
    for _ in range(_MANY_ENDS):
        for held in gc.get_objects():
            if isinstance(held, (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)):
                with suppress(Exception):
                    held.flush()
