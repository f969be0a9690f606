"""What the reports over seeds share: runs of `scripts/train.py`, CSV files that grow row by row, and one recipe per report."""

from __future__ import annotations

import csv
import functools
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import hydra

from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.lineage import commit
from r1_lightning.artefacts.store import Artefact, open_artefact
from r1_lightning.run.compose import HYDRA_VERSION_BASE, compose_stage, config_folder
from r1_lightning.run.graph import plan
from r1_lightning.types.errors import InvalidInput

EXPERIMENT = "experiment=r1_zero_tiny"
METRICS = Path("tensorboard", "metrics.csv")
LAST_LINE = ": everything lies in "


def train(arguments: Sequence[str]) -> tuple[Artefact, float]:
    """Run scripts/train.py; returns the artefact it names at the end and the seconds it took. Raises if it fails."""
    start_s = time.monotonic()
    command = [sys.executable, "scripts/train.py", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    return open_artefact(Path(done.stdout.rstrip().rpartition(LAST_LINE)[2])), time.monotonic() - start_s


@functools.cache
def commit_at_start() -> str:
    """Of the code at work; asked later, the report's own growing files would make the checkout look changed."""
    return commit()


@functools.cache
def planned_fingerprint(*arguments: str) -> str:
    """Of the model that `scripts/train.py` with these arguments would give with today's configuration, short."""
    with hydra.initialize_config_dir(str(config_folder()), version_base=HYDRA_VERSION_BASE):
        return plan(compose_stage(list(arguments))).fingerprint[:SHORT_DIGITS]


def require_recipe(path: Path, what: str, fingerprint: str, arguments: Sequence[str]) -> None:
    """Raise `InvalidInput` where a row of `path` is of another configuration than `arguments` would give now."""
    now = planned_fingerprint(*arguments)
    if fingerprint != now:
        raise InvalidInput(
            f"{path}: {what} has fingerprint {fingerprint} and would now have {now}: the configuration has changed since; "
            "begin a new report with --out FOLDER"
        )


def append(path: Path, fields: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Add rows to a CSV file, with a header if it is new."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fields)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
