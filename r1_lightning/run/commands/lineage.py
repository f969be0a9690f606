"""Prints where an artefact comes from: `r1 lineage runs/grpo-tiny-arithmetic-0123456789`."""

from __future__ import annotations

import argparse
from pathlib import Path

from r1_lightning.artefacts.lineage import render
from r1_lightning.artefacts.store import open_artefact
from r1_lightning.run.config.machine import run_as_command


def main() -> int:
    """The command line of `r1 lineage`; returns the exit code."""
    return run_as_command(_print)


def _print() -> int:
    parser = argparse.ArgumentParser(description="Print an artefact and everything it was made from.")
    parser.add_argument("artefact", type=Path, help="a folder under paths.root")
    print(render(open_artefact(parser.parse_args().artefact)))
    return 0
