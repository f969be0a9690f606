"""TensorBoard with runs by stage, experiment and seed: `python scripts/board.py FOLDER --port 6007`, by default all in runs/."""

from __future__ import annotations

import sys

from r1_lightning.__main__ import run

if __name__ == "__main__":
    sys.exit(run("board"))
