"""The loop over a report's runs: makes each run once, and redraws the report's folder from all rows.

Rows are appended to `results.csv` (and points to `curves.csv`) as runs end, with commit and fingerprint. A run that has rows is not
repeated. Table and picture are redrawn from the rows, whatever configuration these have. A run is never added to rows of another
configuration, so no table mixes two. If all requested runs have rows, a note names the rows that the current configuration would
not reproduce.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from r1_lightning.artefacts.files import write_text
from r1_lightning.run.commands.recipe import Recipe, Run, append, read
from r1_lightning.run.commands.report_runs import commit_at_start, planned_fingerprint
from r1_lightning.run.config.exit_codes import BAD_INPUT
from r1_lightning.types.errors import InvalidInput

RESULTS, CURVES, TABLE, PICTURE = "results.csv", "curves.csv", "table.md", "curve.png"  # in a report's folder


def write_report(recipe: Recipe, folder: Path, runs: Sequence[Run], root: Path) -> int:
    """Make the runs that have no rows in `folder`, and redraw the report; returns the exit code.

    A failed run ends the loop with its own exit code; rows of earlier runs are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, curves = folder / RESULTS, folder / CURVES
    commit_at_start()
    if runs and not _may_be_added(recipe, results, runs):
        return BAD_INPUT
    for run in runs:
        if run in map(recipe.run_of, read(results)):
            print(f"{recipe.label(run)}: already in {results}")
            continue
        try:
            made = recipe.make(*run, root=root)
        except subprocess.CalledProcessError as error:  # the process itself has printed the error
            line = f"error: {recipe.label(run)} was not made; what is there is kept, and the same command goes on"
            print(line, file=sys.stderr)
            return error.returncode
        for name, text in made.files.items():
            write_text(folder / name, text)
        if made.points and run not in map(
            recipe.run_of, read(curves)
        ):  # before the rows, which say that a run is whole
            append(curves, recipe.curve_fields, made.points)
        append(results, recipe.fields, made.rows)
        redraw(recipe, folder)  # after each run, so that there is a table if the loop is stopped early
    print(redraw(recipe, folder))
    return 0


def redraw(recipe: Recipe, folder: Path) -> str:
    """Redraw table, picture and further files from the rows and points in `folder` alone; returns the table.

    Raises `InvalidInput` if there is no row.
    """
    rows, points = read(folder / RESULTS), read(folder / CURVES)
    if not rows:
        raise InvalidInput(f"{folder / RESULTS}: there are no rows to draw")
    table = recipe.table(rows)
    write_text(folder / TABLE, table)
    if recipe.draw is not None:
        recipe.draw(points, folder / PICTURE)
    for name, text in recipe.more_files(rows, points).items():
        write_text(folder / name, text)
    return table


def _may_be_added(recipe: Recipe, results: Path, runs: Sequence[Run]) -> bool:
    """True if `runs` may be added to the rows in `results`; prints a line if a row has another configuration.

    If all runs have rows already, the line is only a note.
    """
    try:
        require_same_recipe(recipe, results)
    except InvalidInput as error:
        missing = not set(runs) <= set(map(recipe.run_of, read(results)))
        print(f"{'error' if missing else 'note'}: {error}", file=sys.stderr if missing else sys.stdout)
        return not missing
    return True


def require_same_recipe(recipe: Recipe, path: Path) -> None:
    """Raise `InvalidInput` if a row of `path` has another fingerprint than its run would have now."""
    for row in filter(recipe.is_of_run, read(path)):
        run = recipe.run_of(row)
        now = planned_fingerprint(*recipe.overrides(*run))
        if row["fingerprint"] != now:
            raise InvalidInput(
                f"{path}: {recipe.label(run)} has fingerprint {row['fingerprint']} and would now have {now}: the configuration "
                "has changed since; begin a new report with --out FOLDER"
            )
