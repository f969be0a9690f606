"""Rewrite README's table of what has run where from the files under reports/."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not
    from benchmarks.what_has_run import main

    sys.exit(main())
