"""The command line of `python scripts/te_check.py`: needs Transformer Engine and a CUDA build of torch installed, and no GPU.

Without the compiled half of the package, which takes minutes to build, a stand-in takes its place, and the report says so.
Prints a table and writes it with `--out`; exits with 1 if anything does not hold, with 2 if the package cannot be imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.gpu.report import versions
from benchmarks.te import kernels
from benchmarks.te.calls import PACKAGE

BAD_INPUT = 2
WITHOUT = "Its compiled half (`transformer-engine-torch`) was not installed: a stand-in had its names and nothing else"
LIBRARIES = ("torch", "transformer-engine", "transformer-engine-torch", "transformer-engine-cu13")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what is installed; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python scripts/te_check.py", description=__doc__)
    parser.add_argument("--out", type=Path, help="a file, such as reports/te/README.md, for the table")
    options = parser.parse_args(arguments)
    import torch  # before the package, which does not import without it

    has_kernels = kernels.are_installed()
    try:
        if not has_kernels:
            kernels.stand_in()
        importlib.import_module(f"{PACKAGE}.pytorch")
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        print(f"error: {PACKAGE}: {type(error).__name__}: {first}", file=sys.stderr)
        return BAD_INPUT
    from benchmarks.te.check import FAILS, rows

    found = rows()
    known = {**versions(LIBRARIES), "CUDA": str(torch.version.cuda)}
    text = report([(row.what, row.verdict, row.seen) for row in found], known, has_kernels)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return int(any(row.verdict == FAILS for row in found))


def report(rows: Sequence[Sequence[str]], known: dict[str, str], has_kernels: bool) -> str:
    """The table in Markdown, below what it was made with."""
    made_with = ", ".join(f"{name} {version}" for name, version in known.items())
    half = "The package was installed whole" if has_kernels else WITHOUT
    lines = [
        "# Our FP8 layers against Transformer Engine, on a machine without a GPU",
        "",
        f"Written by `python scripts/te_check.py --out reports/te/README.md` on {date.today()} with",
        f"{made_with}.",
        f"{half}; no kernel has run, and nothing here says that `precision=fp8_te` trains.",
        "Tests hold the rows of this table against the calls that `model/fp8_te.py` makes now.",
        "",
        "| what `model/fp8_te.py` relies on | verdict | seen |",
        "|---|---|---|",
    ]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
