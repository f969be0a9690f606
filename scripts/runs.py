"""List the runs in a folder and what sets them apart: `runs.py FOLDER stage=grpo`, by default all in runs/."""

from __future__ import annotations

import sys

from r1_lightning.run.commands.runs import list_runs
from r1_lightning.run.config import machine
from r1_lightning.types.errors import InvalidInput


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    try:
        status = machine.set_up()
        print(list_runs(sys.argv[1:]))
        return status
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
