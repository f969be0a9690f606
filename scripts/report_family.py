"""Make R1 in miniature over seeds, check the paper's claims and write `reports/r1_tiny` (3 runs of some 40 minutes)."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.family_report import main

if __name__ == "__main__":
    sys.exit(main())
