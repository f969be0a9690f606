"""One command for all reports: `python scripts/report.py ID` finds `reports/ID/recipe.py` and does what the recipe declares.

    report.py ID [--seeds 0 1 2] [--root FOLDER] [--out FOLDER]   make the runs that are not yet in the report, and draw it
    report.py ID --redraw                                         draw it again from its rows; nothing is run

Runs that are in `results.csv` are not made again, and the same command goes on where it was ended. ID --help shows the options that
a report has of its own.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from r1_lightning.run.commands.recipe import Recipe
from r1_lightning.run.commands.tables.derived import draw_again
from r1_lightning.run.config.exit_codes import BAD_INPUT
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.config.program import command_line
from r1_lightning.types.errors import InvalidInput, require

FOLDER, FILE = "reports", "recipe.py"
CHECKOUT = Path(__file__).resolve().parents[3]
PLAIN = re.compile(r"[a-z][a-z0-9_]*")  # the name of a report


def main(argv: Sequence[str] | None = None) -> int:
    """Make or redraw the report that the arguments name (by default those of the process); returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_as_command(lambda: _report(words))


def _report(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else BAD_INPUT
    name, known = words[0], recipes()
    allowed = ", ".join(known) or "a report with a recipe.py below reports/, and there is none here"
    require(name in known, "report", name, f"it must be one of {allowed}")
    recipe = recipe_of(load(known[name]))
    options = parser(name, title(known[name]), recipe).parse_args(words[1:])
    from r1_lightning.run.commands.report_loop import redraw, write_report  # loads torch

    if options.redraw:
        print(redraw(recipe, options.out))
        code = 0
    else:
        code = write_report(recipe, options.out, list(recipe.runs(options)), options.root)
    draw_again(options.out.parent, name)  # tables that are drawn from its rows
    return code


def recipes() -> dict[str, Path]:
    """Return the path of each report's recipe, by ID; recipes in the working directory take precedence over the checkout's."""
    found: dict[str, Path] = {}
    for folder in (Path.cwd() / FOLDER, CHECKOUT / FOLDER):
        for path in sorted(folder.glob(f"*/{FILE}")):
            if PLAIN.fullmatch(path.parent.name):
                found.setdefault(path.parent.name, path)
    return dict(sorted(found.items()))


def title(path: Path) -> str:
    """Return the first line of a recipe's docstring, without running the recipe."""
    documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return documentation.partition("\n")[0]


def load(path: Path) -> ModuleType:
    """Import a recipe's module anew: a recipe is code of the checkout, as trusted as the package."""
    name = f"{FOLDER}.{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def recipe_of(module: ModuleType) -> Recipe:
    """Return the `Recipe` that the module exports. Raises `InvalidInput` if there is none."""
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise InvalidInput(f"{module.__file__}: it must export RECIPE, a Recipe (r1_lightning.run.commands.recipe)")
    return recipe


def parser(name: str, description: str, recipe: Recipe) -> argparse.ArgumentParser:
    """Make the argument parser of one report: seeds, folder of runs, folder of the report, and the recipe's own options."""
    options = argparse.ArgumentParser(prog=f"{command_line('report')} {name}", description=description)
    options.add_argument(
        "--seeds", type=int, nargs="+", default=list(recipe.seeds), help="which seeds to run, if not yet run"
    )
    options.add_argument("--redraw", action="store_true", help="run nothing, draw the report again from its rows")
    options.add_argument("--root", type=Path, default=Path("runs", name), help="where the runs go")
    options.add_argument("--out", type=Path, default=Path(FOLDER, name), help="the report's folder")
    recipe.add_options(options)
    return options


def usage() -> str:
    """Return the usage of the command with a list of all reports."""
    known = recipes()
    width = max(map(len, known), default=0)
    lines = [f"  {name:{width}}  {title(path)}" for name, path in known.items()]
    return "\n".join([(__doc__ or "").strip(), "", "reports:", *lines])
