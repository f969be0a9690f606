"""What this machine's GPU does: rates, their limits, TRL beside us (`--out reports/gpu` keeps them, `--help` says the rest)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not
    from benchmarks.gpu.command import main

    sys.exit(main())
