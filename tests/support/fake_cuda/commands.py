"""Runs commands on the pretend device, one after another in this process, and writes what each left in the records.

    python -m tests.support.fake_cuda.commands COMMANDS.json RESULT.json      (with the hooks preloaded: see `library.start`)

COMMANDS.json maps names to command lines of `r1` (["train", "stage=pretrain", ...]); "python" in place of a command runs the text
after it, for what has no command. "@NAME@" in a later one is the folder that the command NAME made. RESULT.json maps the names to
exit code, output and records.
"""

from __future__ import annotations

import io
import json
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.fake_cuda.patches import patch
from tests.support.fake_cuda.records import RECORDS
from tests.support.fake_cuda.tensors import OnPretendDevice


def run(words: Sequence[str]) -> dict[str, Any]:
    """Run one command; a traceback is a part of its output, and exit code 1."""
    out, err = io.StringIO(), io.StringIO()
    RECORDS.take()
    with redirect_stdout(out), redirect_stderr(err), OnPretendDevice():
        try:
            code = _call(words)
        except BaseException:
            traceback.print_exc()
            code = 1
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "records": RECORDS.take()}


def _call(words: Sequence[str]) -> int:
    command, *arguments = words
    if command == "python":
        exec(compile(arguments[0], "<test>", "exec"), {"__name__": "__main__"})  # text of the test itself
        return 0
    from r1_lightning.run import cli
    from r1_lightning.run.commands import evaluate_command

    main = {"train": cli.main, "evaluate": evaluate_command.main}[command]
    with mock.patch.object(sys, "argv", [command, *arguments]):
        return main()


def main() -> None:
    patch()
    commands = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    results, folders = {}, {}
    for name, words in commands.items():
        known = [re.sub(r"@(\w+)@", lambda found: folders[found[1]], word) for word in words]
        results[name] = run(known)
        made = re.findall(r"running -> (\S+)", results[name]["out"])
        folders[name] = made[-1] if made else ""
    Path(sys.argv[2]).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
