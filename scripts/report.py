"""Make a report over seeds, or redraw it from its rows: `python scripts/report.py ID` (--help lists the reports)."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("report"))
