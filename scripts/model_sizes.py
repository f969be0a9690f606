"""Count the published models of configs/model; `--write` rewrites docs/models.md."""

from __future__ import annotations

import sys

from r1_lightning.run.cost.model_sizes import main

if __name__ == "__main__":
    sys.exit(main())
