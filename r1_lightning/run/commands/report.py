"""What the reports over seeds share: runs of `scripts/train.py`, CSV files that grow row by row, and one recipe per report.

A report is a table of runs. Its module says what a run is, how it is made and what is written of the rows (a `Report`), and its
`main` is

    options = report_options(__doc__, "moe_in_rl", seeds=[0, 1, 2]).parse_args()
    return write_report(Report(...), options.out)

Rows are appended to `results.csv` (and points to `curves.csv`) as runs end, with commit and fingerprint. A run whose rows are there
is not made again, and table and picture are written anew whenever there are rows: `--seeds` with nothing after it draws them from
the rows alone, whatever configuration they are of. A run is not added to rows of another configuration than its own, so that no
table mixes two; where every run asked for is there already, a note says which rows today's configuration would not give.
"""

from __future__ import annotations

import argparse
import codecs
import csv
import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.lineage import commit
from r1_lightning.artefacts.store import Artefact, open_artefact
from r1_lightning.run.config import machine
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.exit_codes import BAD_INPUT
from r1_lightning.types.errors import InvalidInput

EXPERIMENT = "experiment=r1_zero_tiny"
METRICS = Path("tensorboard", "metrics.csv")
LAST_LINE = ": everything lies in "
RESULTS, CURVES, TABLE, PICTURE = "results.csv", "curves.csv", "table.md", "curve.png"  # in a report's folder

Row = Mapping[str, str]  # as it stands in a CSV file
Rows = Sequence[Mapping[str, object]]  # as they are made
Run = tuple[Any, ...]  # the values of a report's `key`


@dataclass(frozen=True)
class Report:
    """What one report adds to the loop over its runs (`write_report`).

    `key`: the columns that name a run, each with what reads its value from a file; `fields`: those of results.csv.
    `runs`: the runs asked for, in order. Of each, given as its values of `key`: `label` names it for people, `overrides` are the
    arguments of `scripts/train.py` whose fingerprint its rows have, `make` gives its rows and its points of curves.csv.
    `render` makes the table from all rows, `draw` the picture from all points, `write_more` other files from both.
    `is_of_run` tells rows with the run's own fingerprint from those of a control.
    """

    key: Mapping[str, Callable[[str], Any]]
    fields: Sequence[str]
    runs: Iterable[Run]
    label: Callable[..., str]
    overrides: Callable[..., Sequence[str]]
    make: Callable[..., tuple[Rows, Rows]]
    render: Callable[[Sequence[Row]], str]
    curve_fields: Sequence[str] = ()
    draw: Callable[[Sequence[Row], Path], None] | None = None
    write_more: Callable[[Sequence[Row], Sequence[Row]], None] | None = None
    is_of_run: Callable[[Row], bool] = lambda row: True

    def run_of(self, row: Row) -> Run:
        """The run that a row of either file belongs to."""
        return tuple(read_as(row[column]) for column, read_as in self.key.items())


def report_options(
    documentation: str | None, name: str, seeds: Sequence[int], root: str | None = None
) -> argparse.ArgumentParser:
    """The options of every report `name`: which seeds, where runs go, where the report goes."""
    if refused := machine.set_up():
        raise SystemExit(refused)
    parser = argparse.ArgumentParser(description=(documentation or "").partition("\n")[0])
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=list(seeds), help="which seeds to run, if not yet run; none: draw only"
    )
    parser.add_argument("--root", type=Path, default=Path(root or f"runs/{name}"), help="where the runs go")
    parser.add_argument("--out", type=Path, default=Path("reports", name), help="the report's folder")
    return parser


def write_report(report: Report, folder: Path) -> int:
    """Make the runs whose rows are not in `folder`, and write what is there; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    results, curves, runs = folder / RESULTS, folder / CURVES, list(report.runs)
    commit_at_start()
    if not _check_recipe(report, results, runs):
        return BAD_INPUT
    for run in runs:
        if run in map(report.run_of, read(results)):
            print(f"{report.label(*run)}: already in {results}")
            continue
        try:
            rows, points = report.make(*run)
        except subprocess.CalledProcessError as error:  # it has said itself what is wrong
            print(
                f"error: {report.label(*run)} was not made; what is there is kept, and the same command goes on",
                file=sys.stderr,
            )
            return error.returncode
        if points and run not in map(report.run_of, read(curves)):  # before the rows, which say that a run is whole
            append(curves, report.curve_fields, points)
        append(results, report.fields, rows)
        _write(report, folder)  # so that whoever ends it early has a table
    if read(results):
        print(_write(report, folder))
    return 0


def _check_recipe(report: Report, results: Path, runs: Sequence[Run]) -> bool:
    """Whether `runs` may be added to the rows in `results`: False, with a line, where a row is of another configuration.

    Nothing is compared where nothing was asked for, and where all is there already the line is only a note.
    """
    try:
        if runs:
            require_same_recipe(report, results)
    except InvalidInput as error:
        missing = not set(runs) <= set(map(report.run_of, read(results)))
        print(f"{'error' if missing else 'note'}: {error}", file=sys.stderr if missing else sys.stdout)
        return not missing
    return True


def _write(report: Report, folder: Path) -> str:
    """Table, picture and what else the report has, of the rows in `folder`; returns the table."""
    rows, points = read(folder / RESULTS), read(folder / CURVES)
    table = report.render(rows)
    write_text(folder / TABLE, table)
    if report.draw is not None:
        report.draw(points, folder / PICTURE)
    if report.write_more is not None:
        report.write_more(rows, points)
    return table


def require_same_recipe(report: Report, path: Path) -> None:
    """Raise `InvalidInput` where a row of `path` is of another configuration than its run would have today."""
    for row in read(path):
        if report.is_of_run(row):
            run = report.run_of(row)
            require_recipe(path, report.label(*run), row["fingerprint"], report.overrides(*run))


def made_by(artefact: Artefact) -> dict[str, str]:
    """The columns of a row that say which configuration and which code it comes from."""
    return {"fingerprint": artefact.fingerprint[:SHORT_DIGITS], "commit": commit_at_start()}


def rollout_means(artefact: Artefact, names: Iterable[str]) -> Iterator[dict[str, str]]:
    """`step` and the metrics `rollout/NAME` of every step of a run of RL, by name, with four digits."""
    for row in read(artefact.folder / METRICS):
        if row.get("rollout/reward_mean"):
            yield {"step": row["step"], **{name: f"{float(row[f'rollout/{name}']):.4f}" for name in names}}


def train(arguments: Sequence[str]) -> tuple[Artefact, float]:
    """Run scripts/train.py and pass on what it prints, as it prints it, its bars included.

    Returns the artefact it names at the end and the seconds it took. Raises if it fails.
    """
    start_s = time.monotonic()
    command = [sys.executable, "scripts/train.py", *arguments]
    printed, decoder = "", codecs.getincrementaldecoder("utf-8")(errors="replace")
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(4096):
            text = decoder.decode(piece)
            printed += text
            print(text, end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    named = re.findall(rf"{LAST_LINE}(.+)$", printed, re.MULTILINE)
    return open_artefact(Path(named[-1])), time.monotonic() - start_s


@functools.cache
def commit_at_start() -> str:
    """Of the code at work; asked later, the report's own growing files would make the checkout look changed."""
    return commit()


@functools.cache
def planned_fingerprint(*arguments: str) -> str:
    """Of the model that `scripts/train.py` with these arguments would give with today's configuration, short."""
    from r1_lightning.run.graph.plan import plan

    with composing():
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
