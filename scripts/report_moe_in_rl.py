"""Measure what becomes of routers and MTP modules in RL and write `reports/moe_in_rl` (18 runs of some 4 minutes)."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.moe_report import main

if __name__ == "__main__":
    sys.exit(main())
