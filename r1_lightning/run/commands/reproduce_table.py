"""A table of the papers with ours beside it: the paper / ours / protocol / budget / intervals / a verdict per claim.

    reproduce_table.py --list                        the tables there are
    reproduce_table.py table=ID                      print the table and write it to reports/ID from the rows that are there
    reproduce_table.py table=ID scale=tiny           make the runs that have no rows yet, in miniature, and then the same
    reproduce_table.py table=ID scale=rehearsal      the same with two steps per stage: does every arm run?
    reproduce_table.py table=ID init_from=ARM=FOLDER ...   measure checkpoints of your own; several of one arm are its seeds
    reproduce_table.py --check                       derive every committed table again from its rows; 1 if one differs
    reproduce_table.py --redraw                      write every committed table again from its rows

seeds=0,1,2  root=FOLDER (of the runs)  out=FOLDER (of the table); with init_from also task=NAME, paths.data=FOLDER and
evaluation.samples=64. A table is configs/table/ID.yaml; a report with a recipe (`report.py`) is a table too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r1_lightning.artefacts.files import write_text
from r1_lightning.run.commands import report
from r1_lightning.run.commands.recipe import Recipe, read
from r1_lightning.run.commands.tables.declared import Table, read_table, tables
from r1_lightning.run.commands.tables.derived import PAGE, RESULTS, draw_again, drawn, rows_of
from r1_lightning.run.commands.tables.page import page
from r1_lightning.run.config.exit_codes import BAD_INPUT
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.types.errors import InvalidInput, require, require_choice

SCALES = ("tiny", "rehearsal")
ALONE = ("--list", "--check", "--redraw")  # of all tables
DIFFERS = 1  # the exit code of --check


@dataclass
class Asked:
    """What was typed."""

    table: str = ""
    scale: str | None = None
    seeds: list[int] = field(default_factory=list)
    root: Path | None = None
    out: Path | None = None
    init_from: dict[str, list[str]] = field(default_factory=dict)
    evaluation: dict[str, object] = field(default_factory=dict)
    task: list[str] = field(default_factory=list)
    of_recipe: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_as_command(lambda: _do(words))


def _do(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if words else BAD_INPUT
    alone = [word for word in words if word in ALONE]
    require(not alone or len(words) == 1, "arguments", " ".join(words), f"{' '.join(alone)} must stand alone")
    if list(words) == ["--list"]:
        print(listing())
        return 0
    if list(words) == ["--check"]:
        return check(Path.cwd() / report.FOLDER)
    if list(words) == ["--redraw"]:
        draw_again(Path(report.FOLDER))
        return 0
    asked = parse(words)
    known = tables()
    require_choice("table", asked.table, sorted({*known, *report.recipes()}))
    if asked.table not in known:
        return _recipe(asked)
    table = read_table(known[asked.table])
    of_recipe = asked.of_recipe if table.report is None else []
    require(not of_recipe, "arguments", " ".join(of_recipe), "options are for the table of a report")
    return _own(table, asked) if table.report is None or asked.init_from else _of_report(table, asked)


def parse(words: Sequence[str]) -> Asked:
    """Read KEY=VALUE words. Raises `InvalidInput` for a key that there is not."""
    asked = Asked()
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("--"):
            asked.of_recipe.append(word)
        elif key in ("table", "scale"):
            setattr(asked, key, value)
        elif key in ("root", "out"):
            setattr(asked, key, Path(value))
        elif key == "seeds":
            require(all(part.isdecimal() for part in value.split(",")), "seeds", value, "whole numbers, as 0,1,2")
            asked.seeds = [int(part) for part in value.split(",")]
        elif key == "init_from":
            arm, _, folder = value.partition("=")
            require(bool(arm and folder), "init_from", value, "it must be ARM=FOLDER")
            asked.init_from.setdefault(arm, []).append(folder)
        elif key.startswith("evaluation."):
            asked.evaluation[key.removeprefix("evaluation.")] = _number(key, value)
        elif equals and key.split(".")[0] in ("task", "paths"):
            asked.task.append(word)
        else:
            keys = "table, scale, seeds, root, out, init_from, evaluation.KEY, task, paths.KEY"
            raise InvalidInput(f"the argument {word!r} is not known: the keys are {keys}")
    if asked.scale is not None:
        require_choice("scale", asked.scale, SCALES)
    return asked


def _number(key: str, value: str) -> int | float:
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        raise InvalidInput(f"{key}={value!r} is not allowed: it must be a number") from None


def listing() -> str:
    """A line per table: its ID, what it is, and whether it stands below reports/."""
    lines = {name: read_table(path).title for name, path in tables().items()}
    for name, path in report.recipes().items():
        lines.setdefault(name, report.title(path))
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {title}" for name, title in sorted(lines.items()))


def check(reports: Path) -> int:
    """Derive table.md of every table and report again from its rows, and name those that differ; returns the exit code."""
    found = list(differing(reports))
    for path in found:
        print(f"{path}: it is not what its rows give", file=sys.stderr)
    return DIFFERS if found else 0


def differing(reports: Path) -> Iterator[Path]:
    """The files table.md below `reports` that are not what their rows give today."""
    for written, text in drawn(reports):
        if written.read_text(encoding="utf-8") != text:
            yield written
    for name, path in report.recipes().items():
        written = reports / name / PAGE
        if written.is_file():
            text = report.recipe_of(report.load(path)).table(read(reports / name / RESULTS))
            if written.read_text(encoding="utf-8") != text:
                yield written


def _of_report(table: Table, asked: Asked) -> int:
    """A table that is drawn from the rows of a report: the report is made where rows are missing."""
    require(asked.scale != "rehearsal", "scale", asked.scale, f"the rows are those of the report {table.report}")
    reports, out = Path(report.FOLDER), asked.out or Path(report.FOLDER, table.id)
    if asked.scale is not None:
        words = [*table.report_words, *asked.of_recipe]
        code = _make_report(str(table.report), asked, words, asked.seeds or list(table.seeds), reports)
        if code:
            return code
    rows, points = rows_of(table, reports)
    require(bool(rows), "table", table.id, f"there are no rows in {reports / str(table.report)}; scale=tiny makes them")
    return _write(out, page(table, rows, points))


def _recipe(asked: Asked) -> int:
    """A report with a recipe: the same loop, by the options of the report."""
    require(not asked.init_from, "init_from", asked.init_from, "this table has a recipe, which makes its own models")
    return _make_report(asked.table, asked, asked.of_recipe, asked.seeds, Path(report.FOLDER))


def _make_report(name: str, asked: Asked, words: Sequence[str], seeds: Sequence[int], reports: Path) -> int:
    known = report.recipes()
    require_choice("report", name, known)
    recipe: Recipe = report.recipe_of(report.load(known[name]))
    options: argparse.Namespace = report.parser(name, report.title(known[name]), recipe).parse_args(list(words))
    options.seeds = seeds or options.seeds
    from r1_lightning.run.commands.report_loop import redraw, write_report  # loads torch

    folder = asked.out if asked.out is not None and name == asked.table else reports / name
    if asked.scale is None:
        print(redraw(recipe, folder))
        return 0
    return write_report(recipe, folder, list(recipe.runs(options)), asked.root or Path("runs", name))


def _own(table: Table, asked: Asked) -> int:
    """A table with runs of its own, or one of a user's own checkpoints."""
    folder = Path(report.FOLDER, table.id)
    if asked.scale is None and not asked.init_from:
        rows, points = rows_of(table, Path(report.FOLDER))
        time = "" if table.minutes is None else f", some {table.minutes:g} minutes a seed on one core"
        require(bool(rows), "table", table.id, f"there are no rows in {folder}; scale=tiny makes them{time}")
        return _write(asked.out or folder, page(table, rows, points))
    from r1_lightning.run.commands.report_loop import write_report  # loads torch
    from r1_lightning.run.commands.tables.making import (
        REHEARSED,
        own_checkpoints,
        own_runs,
        require_same_checkpoints,
        require_same_measuring,
        settings_of,
    )

    if asked.init_from:
        out = asked.out or folder / "own"
        recipe, runs = own_checkpoints(table, asked.init_from, asked.evaluation, asked.task)
        require_same_checkpoints(out, read(out / RESULTS), runs)
        said = settings_of(table, asked.evaluation, asked.task)
    else:
        rehearsal = asked.scale == "rehearsal"
        out = asked.out or (Path("runs", "rehearsals", table.id) if rehearsal else folder)
        recipe, runs = own_runs(table, asked.seeds or ([0] if rehearsal else list(table.seeds)), rehearsal)
        said = settings_of(table, REHEARSED if rehearsal else {}, ())
    require_same_measuring(out, read(out / RESULTS), said)
    return write_report(recipe, out, runs, asked.root or Path("runs", "tables"))


def _write(out: Path, text: str) -> int:
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / PAGE, text)
    print(text)
    return 0
