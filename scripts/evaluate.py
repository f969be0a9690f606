"""Measure a finished artefact again, or a published checkpoint: `python scripts/evaluate.py FOLDER` (--help shows the options)."""

from __future__ import annotations

import sys

from r1_lightning.run.config.openmp import bound_spinning

if __name__ == "__main__":
    bound_spinning()  # before torch is imported
    from r1_lightning.run.commands.evaluate import main

    sys.exit(main())
