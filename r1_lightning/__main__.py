"""The program `r1`: `r1 train stage=grpo`, `r1 evaluate FOLDER`, ... , one word per command; `r1 --help` lists them.

A command is imported when it is named, so that help and a mistyped word are answered without Hydra and torch. The scripts of a
checkout (`python scripts/train.py`) run the same functions. Without installation, `python -m r1_lightning train` is `r1 train`.
The table names modules of all rooms of `run`, so this file stands above them.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from r1_lightning import __version__
from r1_lightning.run.config.exit_codes import BAD_INPUT, DEFECT, note
from r1_lightning.run.config.openmp import bound_spinning
from r1_lightning.run.config.program import NAME
from r1_lightning.types.errors import Stopped
from r1_lightning.types.stopping import STOP

ROOMS = "r1_lightning.run."


@dataclass(frozen=True)
class Command:
    """`entry` is MODULE:FUNCTION below `run`; the function reads `sys.argv` and returns the exit code.

    A command that `resumes` saves its work when a signal comes; the others end, as any program does.
    """

    entry: str
    does: str
    resumes: bool = False


COMMANDS: Mapping[str, Command] = {
    "train": Command("cli:main", "train a stage, after making the inputs that it needs: r1 train stage=grpo", True),
    "sample": Command("cli:sample", "make a data set by rejection sampling", True),
    "submit": Command("commands.submit:main", "submit a stage to SLURM, as jobs; `r1 submit status` lists them"),
    "evaluate": Command("commands.evaluate_command:main", "measure a finished run again, or a published checkpoint"),
    "export": Command("commands.export:main", "write a run as a folder that transformers loads"),
    "report": Command(
        "commands.report:main", "make a report over seeds, or redraw it from its rows: r1 report r1_tiny"
    ),
    "reproduce-table": Command(
        "commands.reproduce_table:main", "a table of the papers with ours beside it, and verdicts: table=stages"
    ),
    "runs": Command("commands.runs:main", "list runs and the settings in which they differ"),
    "review-run": Command("commands.review_run:main", "write one page that tells whether a run is to be trusted"),
    "board": Command("commands.board:main", "TensorBoard, with runs by stage, experiment and seed"),
    "lineage": Command("commands.lineage:main", "print what a run was made from, with seeds and commits"),
    "show-problems": Command("commands.show_problems:main", "print problems of a task as a model is asked them"),
    "write-traces": Command("commands.write_traces:main", "write clean worked solutions as rows for a cold start"),
    "models": Command("cost.model_sizes:main", "count parameters and cache per token of published models"),
    "plan": Command("cost.scaling_plan:main", "which N and D for a budget, what loss and cost, by scaling laws"),
    "plan-pipeline": Command("cost.plan_pipeline:main", "simulate pipeline schedules: bubble, memory and timelines"),
}


def main() -> int:
    """The command line of `r1`; returns the exit code."""
    arguments = sys.argv[1:]
    first = arguments[0] if arguments else None
    if first in (None, "-h", "--help"):
        print(usage())
        return BAD_INPUT if first is None else 0
    if first == "--version":
        print(f"r1_lightning {__version__}")
        return 0
    if first not in COMMANDS:
        print(f"error: {refusal(arguments)}", file=sys.stderr)
        return BAD_INPUT
    sys.argv = [f"{NAME} {first}", *arguments[1:]]  # so that a command's own help has its name
    return run(first)


def run(name: str) -> int:
    """Run the command `name` with the arguments in `sys.argv[1:]`; returns the exit code."""
    if COMMANDS[name].resumes:
        STOP.listen()  # from here on: the imports below may take ten seconds
        STOP.leave = _leave  # until something has begun
    bound_spinning()  # before torch is imported
    module, _, function = COMMANDS[name].entry.partition(":")
    try:
        command: Callable[[], int] = getattr(import_module(ROOMS + module), function)
        return command()
    except Exception:  # a package that cannot be imported; an error of the command itself is noted where it is told
        note(DEFECT)
        raise
    finally:
        STOP.begin()


def _leave(stopped: Stopped) -> NoReturn:
    """End the process with the code of `stopped`, without what Python does at its end: modules are half imported."""
    print(f"\n{stopped.reason}; the same command resumes", file=sys.stderr, flush=True)
    note(stopped.code)
    os._exit(stopped.code)


def usage() -> str:
    """Return the text of `r1 --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.does}" for name, command in COMMANDS.items()]
    head = f"usage: {NAME} COMMAND [ARGUMENT ...]\n\nDeepSeek-R1 as a graph of stages.\n"
    return "\n".join(
        [head, *lines, f"\n`{NAME} COMMAND --help` shows a command's arguments, `{NAME} --version` the version."]
    )


def refusal(arguments: list[str]) -> str:
    """Return the error line for an unknown command, with the command that was probably meant."""
    first = arguments[0]
    near = difflib.get_close_matches(first.replace("_", "-"), COMMANDS, n=1)
    meant = f"{NAME} {near[0]}" if near else f"{NAME} train {' '.join(arguments)}" if "=" in first else ""
    hint = f"; did you mean {meant}?" if meant else ""
    return f"command={first!r} is not allowed: it must be one of {', '.join(COMMANDS)}{hint}"


if __name__ == "__main__":
    sys.exit(main())
