"""Write a finished artefact as a folder that `transformers` loads: `export_hf.py artefact=RUN out=DIR`."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
