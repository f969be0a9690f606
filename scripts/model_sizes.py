"""Count the published models of configs/model; `--write` rewrites docs/models.md."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("models"))
