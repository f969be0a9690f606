"""Clean traces for a cold start as JSON lines: `r1 write-traces task=r1_tiny count=2000 file=cold_start.jsonl`.

Each row holds question, completion, answer, problem_id, language, domain and level (`r1_lightning/tasks/clean_traces.py`), which is
what `stage=sft` reads. `form=r1` (the default) has a summary after the thinking, `form=r1_zero` an answer block;
`domains=reasoning` (the default; of a family of tasks also general and safety, joined by commas) chooses parts; `start` is the
number of the first row. Everything else is an override as `train.py` takes it. The file is written at once or not at all, and never
over another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from r1_lightning.artefacts.files import output_folder, write_text
from r1_lightning.run.commands.base import own_keys, parse_int, run_command, task_of
from r1_lightning.run.config.program import usage
from r1_lightning.run.config.targets import find_own_modules
from r1_lightning.tasks.clean_traces import clean_rows
from r1_lightning.tasks.family import FamilyTask
from r1_lightning.tasks.solved import SolvedSource
from r1_lightning.types.errors import require

ARGUMENTS = "task=NAME count=N file=FILE.jsonl [form=r1|r1_zero] [domains=reasoning] [start=0] [OVERRIDE ...]"
DEFAULTS = {"count": "", "file": "", "form": "r1", "domains": "reasoning", "start": "0"}
MAX_COUNT = 10_000_000


def write_traces(arguments: Sequence[str]) -> str:
    """Write the traces that the command line asks for; returns a line about them. Raises `InvalidInput`."""
    own, overrides = own_keys(arguments, DEFAULTS)
    count, start = (parse_int(name, own[name], minimum, MAX_COUNT) for name, minimum in (("count", 1), ("start", 0)))
    require(own["file"].endswith(".jsonl"), "file", own["file"], "a name that ends in .jsonl is needed")
    path = Path(own["file"])
    require(not path.exists(), "file", str(path), "it is there already, and nothing is overwritten")
    config, source = task_of(overrides)
    solved = _part(source, own["domains"].split(","))
    rows = list(clean_rows(solved, config.seed, start, count, own["form"]))  # type: ignore[arg-type]  # checked there
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with output_folder(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return f"{len(rows)} rows, form {own['form']}, domains {own['domains']}: {path}"


def main() -> int:
    """The command line of `r1 write-traces`; returns the exit code."""
    find_own_modules()
    return run_command(__doc__, usage("write-traces", ARGUMENTS), write_traces)


def _part(source: object, domains: Sequence[str]) -> SolvedSource:
    """Return the members of a family that belong to `domains`; any other task belongs to reasoning."""
    if isinstance(source, FamilyTask):
        return source.of_domains(domains)
    require(list(domains) == ["reasoning"], "domains", list(domains), "only a family of tasks has other domains")
    named = type(source).__name__
    require(isinstance(source, SolvedSource), "task.source", named, "it does not say how its problems are solved")
    assert isinstance(source, SolvedSource)
    return source
