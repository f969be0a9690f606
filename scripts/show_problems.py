"""Print what a task makes of its rows: `python scripts/show_problems.py task=mbpp count=3`."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("show-problems"))
