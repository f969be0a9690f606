"""Measure GRPO without and with the language reward and write `reports/language_consistency` (6 runs of some 5 minutes)."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.language_report import main

if __name__ == "__main__":
    sys.exit(main())
