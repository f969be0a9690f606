"""Write a finished artefact as a folder that `transformers` loads: `python scripts/export_hf.py artefact=RUN out=DIR`."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("export"))
