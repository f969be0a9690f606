"""Make a data set by rejection sampling: `python scripts/sample.py stage.samples=16 init_from=RUN` (--help shows the options)."""

from __future__ import annotations

import sys

from r1_lightning.run.cli import main

if __name__ == "__main__":
    if not any(argument.startswith("stage=") for argument in sys.argv[1:]):
        sys.argv.insert(1, "stage=sample")
    sys.exit(main())
