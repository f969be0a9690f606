"""Run R1-Zero in miniature over several seeds with its controls and write `reports/r1_zero_tiny` (about 12 minutes a seed)."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.reasoning_report import main

if __name__ == "__main__":
    sys.exit(main())
