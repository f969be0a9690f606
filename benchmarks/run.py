"""Run the benchmarks: `python benchmarks/run.py` (`--quick` for a tiny rehearsal, `--help` for the rest)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not
    from benchmarks.command import main

    sys.exit(main())
