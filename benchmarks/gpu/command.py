"""The command line of `python scripts/gpu_check.py`: runs what can run here, says why the rest cannot.

No row is ever filled in from elsewhere: it holds what was measured in this run, or the reason for which nothing was. A missing
GPU or package is such a reason and no error (exit 0); an error within a part fails that part alone, and the command exits with 1.
The parts that tell most come first, within `--seconds`; what no longer fits says so.
`--rehearse` takes the very same way on the CPU with tiny sizes; its numbers mean nothing and are never kept.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.needs import NEEDS, missing
from r1_lightning.types.errors import InvalidInput, require, require_number

BAD_INPUT = 2
PARTS = (
    *("pretraining", "sampling", "same_bits", "recipe", "attention", "grpo"),
    *("fp8_bits", "fp8_products", "fp8_speed"),
)
SECONDS = 480.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this machine; returns the exit code."""
    options = _options(arguments)
    try:
        is_hash = options.commit is None or bool(re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", options.commit))
        require(is_hash, "--commit", options.commit, "the hexadecimal digits of a commit")
        require_number("--seconds", options.seconds, 0.0, open_minimum=True)
        require(not (options.rehearse and options.out), "--rehearse", True, "it keeps nothing, so no --out")
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    if reason := missing(NEEDS):
        print(f"every part: not run: {reason}")
        return 0
    from benchmarks.gpu.check import check  # not before it is known that its imports are there

    return check(options.only or PARTS, options.rehearse, options.out, options.commit, options.seconds)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python scripts/gpu_check.py", description=__doc__)
    parser.add_argument("--out", type=Path, help="a folder, such as reports/gpu, for the file of what ran on a GPU")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="some parts instead of all")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the time for all parts together")
    parser.add_argument("--rehearse", action="store_true", help="the same code on the CPU, tiny sizes; keeps nothing")
    parser.add_argument("--commit", help="the commit that runs, where the checkout has no git history")
    return parser.parse_args(arguments)
