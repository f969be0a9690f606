"""A table of the papers with ours beside it: `python scripts/reproduce_table.py table=ID` (--list shows the tables)."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("reproduce-table"))
