"""Clean traces for a cold start as JSON lines: `python scripts/write_traces.py task=r1_tiny count=2000 file=cold_start.jsonl`.

Each row holds question, completion, answer, problem_id, language, domain and level (`r1_lightning/tasks/clean_traces.py`), which is
what `stage=sft` reads. `form=r1` (the default) has a summary after the thinking, `form=r1_zero` an answer block;
`domains=reasoning` (the default; of a family of tasks also general and safety, joined by commas) chooses parts; `start` is the
number of the first row. Everything else is an override as `train.py` takes it. The file is written at once or not at all, and never
over another.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from r1_lightning.artefacts.files import output_folder, write_text
from r1_lightning.run.cli import BAD_INPUT
from r1_lightning.run.compose import compose_stage, composing
from r1_lightning.run.targets import find_own_modules
from r1_lightning.run.validate import validate
from r1_lightning.tasks.clean_traces import clean_rows
from r1_lightning.tasks.family import FamilyTask
from r1_lightning.tasks.solved import SolvedSource
from r1_lightning.types.errors import InvalidInput, require, require_int

USAGE = (
    "usage: python scripts/write_traces.py task=NAME count=N file=FILE.jsonl [form=r1|r1_zero] [domains=reasoning] "
    "[start=0] [OVERRIDE ...]"
)
DEFAULTS = {"count": "", "file": "", "form": "r1", "domains": "reasoning", "start": "0"}
MAX_COUNT = 10_000_000


def write_traces(arguments: Sequence[str]) -> str:
    """Do what the command line asks for, and say what was written. Raises `InvalidInput`."""
    own, overrides = dict(DEFAULTS), []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(argument)
    count, start = (_whole(name, own[name], minimum) for name, minimum in (("count", 1), ("start", 0)))
    require(own["file"].endswith(".jsonl"), "file", own["file"], "a name that ends in .jsonl is needed")
    path = Path(own["file"])
    require(not path.exists(), "file", str(path), "it is there already, and nothing is overwritten")
    with composing():
        config = compose_stage(overrides).config
        validate(config)
        source, seed = instantiate(config.task.source, _convert_="all"), config.seed
    source = _part(source, own["domains"].split(","))
    rows = list(clean_rows(source, seed, start, count, own["form"]))  # type: ignore[arg-type]  # checked there
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with output_folder(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return f"{len(rows)} rows, form {own['form']}, domains {own['domains']}: {path}"


def main() -> int:
    """The command line of `scripts/write_traces.py`; returns the exit code."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"{(__doc__ or '').strip()}\n\n{USAGE}")
        return 0 if arguments else BAD_INPUT
    find_own_modules()
    try:
        print(write_traces(arguments))
    except (InvalidInput, InstantiationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, InvalidInput):
            raise
        print(f"error: {' '.join(str(cause).split())}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _part(source: object, domains: Sequence[str]) -> SolvedSource:
    """The parts of a family that belong to `domains`; another task is one of reasoning."""
    if isinstance(source, FamilyTask):
        return source.of_domains(domains)
    require(list(domains) == ["reasoning"], "domains", list(domains), "only a family of tasks has other domains")
    named = type(source).__name__
    require(isinstance(source, SolvedSource), "task.source", named, "it does not say how its problems are solved")
    assert isinstance(source, SolvedSource)
    return source


def _whole(name: str, text: str, minimum: int) -> int:
    value = int(text) if text.isdecimal() and len(text) < 9 else text
    require_int(name, value, minimum, MAX_COUNT)
    return int(value)
