"""Measure a finished artefact again, or a published checkpoint: `python scripts/evaluate.py FOLDER` (--help shows the options)."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("evaluate"))
