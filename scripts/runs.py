"""List the runs in a folder and what sets them apart: `python scripts/runs.py FOLDER stage=grpo`, by default all in runs/."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("runs"))
