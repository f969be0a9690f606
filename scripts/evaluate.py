"""Measure a finished artefact on held-out problems: `python scripts/evaluate.py runs/grpo-... --samples 64`."""

from __future__ import annotations

import sys

from r1_lightning.run.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
