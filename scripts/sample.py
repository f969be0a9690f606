"""Make a data set by rejection sampling: `python scripts/sample.py stage.samples=16 init_from=RUN` (--help shows the options)."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("sample"))
