"""How every command begins and ends: the operating system checked, output that accepts every character, bad input in one line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from r1_lightning.run.config.exit_codes import BAD_INPUT, bad_input_in

UNSUPPORTED = ("win32", "cygwin")


def set_up() -> int:
    """Make the output write characters that it cannot show as `\\u4e2d`; returns 0, or 2 with a line on an unsupported system."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if sys.platform in UNSUPPORTED:
        print(
            f"error: this system ({sys.platform}) is not supported: r1_lightning runs on Linux and macOS, and on Windows inside "
            "WSL 2 (`wsl --install`)",
            file=sys.stderr,
        )
        return BAD_INPUT
    return 0


def run_as_command(do: Callable[[], int]) -> int:
    """Return the exit code of `do`, 2 after a line on bad input anywhere in an error's chain, or 0 when the reader closed the pipe.

    Another error is a defect and is raised, so that it ends with its traceback.
    """
    if refused := set_up():
        return refused
    try:
        code = do()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = bad_input_in(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return BAD_INPUT
