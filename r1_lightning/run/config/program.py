"""The way in which the user started this program, so that commands which it prints can be copied and run.

An installed package has one program, `r1`, with a command per task; a checkout also has a script per command in scripts/.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import r1_lightning

NAME = "r1"
SCRIPTS = Path(r1_lightning.__file__).resolve().parents[1] / "scripts"  # absent beside an installed package
SCRIPT_OF = {"export": "export_hf", "models": "model_sizes"}  # of the other commands the script has the command's name


def command_line(command: str) -> str:
    """Return the words that start `command`: `r1 export`, or `python scripts/export_hf.py` if a script of the checkout runs."""
    if _is_r1() or not SCRIPTS.is_dir():
        return f"{NAME} {command}"
    script = SCRIPTS / f"{SCRIPT_OF.get(command, command.replace('-', '_'))}.py"
    return f"python {shlex.quote(min(os.path.relpath(script), str(script), key=len))}"  # as one would type it


def usage(command: str, arguments: str) -> str:
    """Return the usage line of a command."""
    return f"usage: {command_line(command)} {arguments}"


def typed() -> str:
    """Return the running command as the user would type it again."""
    if _is_r1():  # the console makes the program's name `r1 COMMAND`
        return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".rstrip()
    return f"python {shlex.join(sys.argv)}"


def _is_r1() -> bool:
    return sys.argv[0].partition(" ")[0] == NAME
