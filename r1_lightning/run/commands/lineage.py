"""Prints where an artefact comes from: `r1 lineage runs/grpo-tiny-arithmetic-0123456789`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from r1_lightning.artefacts.lineage import render
from r1_lightning.artefacts.store import open_artefact
from r1_lightning.run.config import machine
from r1_lightning.run.config.exit_codes import BAD_INPUT
from r1_lightning.types.errors import InvalidInput


def main() -> int:
    """The command line of `r1 lineage`; returns the exit code."""
    if refused := machine.set_up():
        return refused
    parser = argparse.ArgumentParser(description="Print an artefact and everything it was made from.")
    parser.add_argument("artefact", type=Path, help="a folder under paths.root")
    try:
        print(render(open_artefact(parser.parse_args().artefact)), flush=True)
    except BrokenPipeError:  # `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0
