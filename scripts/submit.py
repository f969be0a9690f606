"""Submit a stage to SLURM: `python scripts/submit.py stage=grpo launcher.partition=NAME` (--help shows the options)."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("submit"))
