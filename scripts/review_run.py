"""Write the page of a run: `python scripts/review_run.py runs/grpo-tiny-arithmetic-0123456789`."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("review-run"))
