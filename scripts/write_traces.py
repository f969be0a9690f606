"""Write clean traces for a cold start: `python scripts/write_traces.py task=r1_tiny count=2000 file=cold_start.jsonl`."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("write-traces"))
