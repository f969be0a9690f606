"""Measures a finished artefact, or a published checkpoint, and writes down every sample.

    r1 evaluate runs/grpo-... --samples 64 --force-empty-think
    r1 evaluate model=hf init_from=/path/to/qwen benchmark=gsm8k
    r1 evaluate /path/to/qwen task=aime24 --max-new-tokens 32768 --against runs/evaluations/aime24-...
    r1 evaluate --check runs/evaluations/aime24-...

A published benchmark is sampled as DeepSeek-R1 samples it (`evaluation/benchmarks.py`: temperature 0.6, top-p 0.95, 64 samples for
AIME), everything else as the artefact's own configuration says. The same command goes on where a killed one stopped.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.hf_folder import is_hf_folder
from r1_lightning.artefacts.hub import is_hub_name
from r1_lightning.evaluation import records
from r1_lightning.evaluation.benchmarks import settings_of
from r1_lightning.evaluation.inspect_log import write_log
from r1_lightning.evaluation.runner import EvaluationConfig
from r1_lightning.evaluation.statements import compared, over_seeds
from r1_lightning.run.commands.evaluate import EMPTY_THINK, prepared
from r1_lightning.run.commands.evaluate_records import checked, recorded, told
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.config.targets import find_own_modules
from r1_lightning.types.errors import InvalidInput, require

SETTING = re.compile(r"(~|\+{0,2}[A-Za-z_][\w.@]*=)")  # how KEY=VALUE begins; a folder has a slash before any "="
MODEL_HF = "model=hf"


def main() -> int:
    """The command line of `r1 evaluate`; returns the exit code."""
    return run_as_command(_measure)


def _measure() -> int:
    values = vars(_parser().parse_intermixed_args())
    check, against, seeds, view = (values.pop(name) for name in ("check", "against", "seeds", "inspect"))
    if seeds or check is not None:
        _refuse_others(values)
    if view is not None:  # before anything is sampled, as the other records are read
        require(not view.is_dir(), "--inspect", str(view), "it is a folder; name a file")
    other = None if against is None else records.read(against)
    if other is not None:
        other.judged()
    if seeds:
        print("\n".join(over_seeds([checked(folder)[0] for folder in seeds])))
        return 0
    if check is not None:
        found, line = checked(check)
    else:
        found, line = _sampled(values)
    print(told(found))
    print(line)
    if view is not None:
        write_log(found, view)
        print(f"{view}: a log of inspect-ai (`inspect view --log-dir {view.parent}`)")
    if other is not None:
        print("\n".join(compared(found, other)))
    return 0


def _refuse_others(values: dict[str, Any]) -> None:
    """Raise `InvalidInput` for a model or a setting beside --check or --seeds, which read records alone."""
    given = [name for name, value in values.items() if value is not None and value is not False and value != []]
    require(
        not given, "arguments", ", ".join(given), "--check and --seeds read records alone, without model or settings"
    )


def _sampled(values: dict[str, Any]) -> tuple[records.Records, str]:
    """Evaluate what the command line names; returns its records, and where they lie."""
    prefix = EMPTY_THINK if values.pop("force_empty_think") else ""
    trust_targets, reward, out = values.pop("trust_targets"), values.pop("reward"), values.pop("out")
    folder, task = folder_and_task(values.pop("words"), values.pop("task_name"))
    find_own_modules()
    named = next((word.partition("=")[2] for word in task if word.startswith("task=")), None)
    changes = settings_of(named) | {name: value for name, value in values.items() if value is not None}
    found = recorded(prepared(folder, changes, prefix, trust_targets, reward, task), out)
    return found, f"every sample is in {found.folder}; --check {found.folder} derives the table from them"


def folder_and_task(words: Sequence[str], task_name: str | None = None) -> tuple[Path, list[str]]:
    """Return the folder that the words of a command line name, as such or by init_from=FOLDER, and the other words.

    benchmark=NAME is task=NAME, and model=hf, which a published checkpoint is in any case, may be said. Raises `InvalidInput` if
    there is no folder, or more than one.
    """
    task = [] if task_name is None else [f"task={task_name}"]
    folders = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "init_from":
            folders.append(value)
        elif not SETTING.match(word):
            folders.append(word)
        else:
            task.append(f"task={value}" if key == "benchmark" else word)
    require(len(folders) == 1, "the folder", folders, "name one artefact or checkpoint: FOLDER, or init_from=FOLDER")
    folder = Path(folders[0])
    if is_hub_name(folder) or is_hf_folder(folder):
        task = [word for word in task if word != MODEL_HF]
    elif MODEL_HF in task:
        raise InvalidInput(f"{MODEL_HF} is not allowed: {folder} is no checkpoint in HuggingFace's form")
    return folder, task


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip(), formatter_class=text)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="FOLDER task=NAME",
        help="a folder under paths.root, a checkpoint in HuggingFace's form, or hub:OWNER/NAME (init_from=FOLDER says the same), "
        "and a task with settings of it (benchmark=NAME says the same; default: the artefact's own)",
    )
    parser.add_argument("--task", dest="task_name", metavar="NAME", help="the same as task=NAME")
    parser.add_argument("--force-empty-think", action="store_true", help="leave the model no room to reason")
    parser.add_argument(
        "--trust-targets", action="store_true", help="also run code of others that the artefact's configuration names"
    )
    parser.add_argument(
        "--reward",
        help="judge answers by this option of configs/reward; default: as it was trained, else by task.judge",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where samples are written; default: in evaluations/"
    )
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="derive the table of these records again; no model runs"
    )
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="compare, question by question, with these records"
    )
    parser.add_argument(
        "--inspect", type=Path, metavar="FILE.json", help="also write the records as a log of inspect-ai"
    )
    parser.add_argument(
        "--seeds", type=Path, nargs="+", metavar="FOLDER", help="intervals over trainings: the records of each"
    )
    for item in fields(EvaluationConfig):
        kind = type(item.default)
        default = "R1's for a published benchmark, else as in the artefact's config"
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, help=f"default: {default}")
    return parser
