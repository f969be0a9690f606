"""The end of a command: what a finished stage is worth, where it lies, and what to do next, as lines to copy."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from r1_lightning.artefacts import store
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.config.compose import config_folder

LOGS = "tensorboard"  # the folder of metrics.csv and TensorBoard's files in an artefact
NEXT_STAGE = {"pretrain": "grpo", "sft": "grpo"}  # what a model of such a stage is usually the base of


def table(artefact: Artefact) -> str:
    """What a person reads of a finished stage: its own table, else its metrics, and where everything lies."""
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


def next_steps(artefact: Artefact) -> str:
    """A line per thing to do; empty where there is nothing to look at, to measure or to take away."""
    folder, scripts = str(artefact.folder), _shown(config_folder().parent / "scripts")
    lines = []
    if any(Path(folder, LOGS).glob("events.out.tfevents.*")):
        lines.append(("look", f"tensorboard --logdir {shlex.quote(folder)}"))
    if artefact.files:
        data = shlex.quote(f"+stage.inputs.data.folder={folder}")
        lines.append(("train on it", f"python {scripts}/train.py stage=sft {data}"))
    elif artefact.stage not in ("reward_model", "compare") and Path(folder, store.TOKENIZER).is_dir():
        lines.append(("measure", f"python {scripts}/evaluate.py {shlex.quote(folder)} --samples 4"))
        if artefact.stage in NEXT_STAGE:
            base = shlex.quote(f"init_from={folder}")
            lines.append(("train on", f"python {scripts}/train.py stage={NEXT_STAGE[artefact.stage]} {base}"))
        given, out = shlex.quote(f"artefact={folder}"), shlex.quote(f"out=exports/{artefact.folder.name}")
        lines.append(("export", f"python {scripts}/export_hf.py {given} {out}"))
    width = max((len(what) for what, _ in lines), default=0)
    return "\n".join(f"{what:<{width}}  {command}" for what, command in lines)


def _shown(path: Path) -> str:
    """`path` from here, if that is shorter: what a person would type."""
    return shlex.quote(min(os.path.relpath(path), str(path), key=len))
