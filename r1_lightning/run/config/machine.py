"""Sets up the process before a command does anything: checks the operating system, and makes output accept every character."""

from __future__ import annotations

import io
import sys

from r1_lightning.run.config.exit_codes import BAD_INPUT

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
