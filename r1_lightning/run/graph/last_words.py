"""The end of a command's output: the results of a finished stage, its folder, commands to run next, and last the verdict."""

from __future__ import annotations

import shlex
from pathlib import Path

from r1_lightning.artefacts import store
from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.review.verdict import line_of
from r1_lightning.run.config.program import command_line

LOGS = "tensorboard"  # the folder of metrics.csv and TensorBoard's files in an artefact
NEXT_STAGE = {"pretrain": "grpo", "sft": "grpo"}  # the stage that usually starts from such a model


def table(artefact: Artefact) -> str:
    """Return a finished stage's table (else its metrics) and its folder, as text."""
    path = artefact.folder / store.TABLE
    if path.is_file():
        text = path.read_text(encoding="utf-8").rstrip("\n")
    else:
        width = max(map(len, artefact.metrics), default=0)
        text = "\n".join(
            f"{name:<{width}}  {'-' if value is None else format(value, '.4g')}"
            for name, value in artefact.metrics.items()
        )
    return f"{text}\n{artefact.stage}: everything lies in {artefact.folder}".lstrip("\n")


def ending(artefact: Artefact) -> str:
    """Return what follows a finished stage's table: the next commands, and whether to trust the run as the last line of all."""
    return "\n\n".join(block for block in (next_steps(artefact), verdict(artefact)) if block)


def verdict(artefact: Artefact) -> str:
    """Return the line that tells whether to trust a finished run; empty where there is nothing to judge.

    A review that fails is told, and is no reason to fail: the artefact is complete.
    """
    try:
        return line_of(artefact.folder, at_work=False)
    except Exception as error:
        return f"verdict: none, the run's files cannot be reviewed ({' '.join(str(error).split())})"


def next_steps(artefact: Artefact) -> str:
    """Return one line per next command (review, look, measure, train, export); empty if none applies."""
    folder = str(artefact.folder)
    lines = []
    if Path(folder, METRICS).is_file():
        lines.append(("review", f"{command_line('review-run')} {shlex.quote(folder)}"))
    if any(Path(folder, LOGS).glob("events.out.tfevents.*")):
        lines.append(("look", f"{command_line('board')} {shlex.quote(folder)}"))  # TensorBoard
    if artefact.files:
        data = shlex.quote(f"+stage.inputs.data.folder={folder}")
        lines.append(("train on it", f"{command_line('train')} stage=sft {data}"))
    elif artefact.stage not in ("reward_model", "compare") and Path(folder, store.TOKENIZER).is_dir():
        lines.append(("measure", f"{command_line('evaluate')} {shlex.quote(folder)} --samples 4"))
        if artefact.stage in NEXT_STAGE:
            base = shlex.quote(f"init_from={folder}")
            lines.append(("train on", f"{command_line('train')} stage={NEXT_STAGE[artefact.stage]} {base}"))
        given, out = shlex.quote(f"artefact={folder}"), shlex.quote(f"out=exports/{artefact.folder.name}")
        lines.append(("export", f"{command_line('export')} {given} {out}"))
    width = max((len(what) for what, _ in lines), default=0)
    return "\n".join(f"{what:<{width}}  {command}" for what, command in lines)
