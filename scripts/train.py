"""Train a stage, after making whatever it needs: `python scripts/train.py stage=grpo` (--help shows the options)."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("train"))
