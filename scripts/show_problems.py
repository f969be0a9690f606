"""Print what a task makes of its rows: `show_problems.py task=mbpp count=3`."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.show_problems import main

if __name__ == "__main__":
    sys.exit(main())
