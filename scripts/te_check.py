"""Whether our FP8 layers fit the Transformer Engine that is installed here, as far as a machine without a GPU shows it."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not
    from benchmarks.te.command import main

    sys.exit(main())
