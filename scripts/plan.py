"""For a budget: how many parameters and tokens, what loss and what cost, by published scaling laws and our own."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("plan"))
