"""Print where an artefact comes from: `python scripts/lineage.py runs/grpo-tiny-arithmetic-0123456789`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from r1_lightning.artefacts.lineage import render
from r1_lightning.artefacts.store import open_artefact
from r1_lightning.types.errors import InvalidInput


def main() -> int:
    parser = argparse.ArgumentParser(description="Print an artefact and everything it was made from.")
    parser.add_argument("artefact", type=Path, help="a folder under paths.root")
    try:
        print(render(open_artefact(parser.parse_args().artefact)), flush=True)
    except BrokenPipeError:  # `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
