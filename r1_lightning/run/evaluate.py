"""Measures a finished artefact again: other problems, more samples, or with an empty think forced on it.

    python scripts/evaluate.py runs/grpo-... --samples 64 --force-empty-think

Nothing in the artefact's folder changes; the table goes to the terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf
from tqdm import tqdm

from r1_lightning.artefacts import store
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator, render_table
from r1_lightning.run.parts import build_parts
from r1_lightning.types.errors import InvalidInput

EMPTY_THINK = " <think></think><answer>"  # put after the prompt, it leaves no room to reason


def evaluate(folder: Path, changes: Mapping[str, Any], forced_prefix: str = "") -> tuple[str, dict[str, Measure]]:
    """Table and measures of the artefact in `folder` on held-out problems.

    `changes` replaces fields of its own `EvaluationConfig`. Raises `InvalidInput` for a folder that is no complete
    artefact and for bad values.
    """
    artefact = store.open_artefact(folder)
    store.verify(artefact)
    config = OmegaConf.load(folder / store.CONFIG)
    own = config.stage.get("evaluation")
    stored = instantiate(own) if own else EvaluationConfig()
    settings = EvaluationConfig(**{item.name: getattr(stored, item.name) for item in fields(stored)} | dict(changes))
    parts = build_parts(config, artefact)  # the artefact serves as the input: its tokenizer, its weights
    problems = parts["source"].held_out_problems(settings.problems)
    evaluator = Evaluator(problems, parts["tokenizer"], parts["template"], settings, config.seed, forced_prefix)
    with tqdm(total=settings.problems * settings.samples, desc="evaluating", unit="completion") as bar:
        measures = evaluator(parts["backbone"].eval(), bar.update)
    title = f"{folder}: {settings.problems} held-out problems, {settings.samples} samples each, 95 % intervals"
    return render_table(title, {artefact.stage: measures}), measures


def main() -> int:
    """The command line of `scripts/evaluate.py`; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure a finished artefact on held-out problems.")
    parser.add_argument("artefact", type=Path, help="a folder under paths.root")
    parser.add_argument("--force-empty-think", action="store_true", help="leave the model no room to reason")
    for item in fields(EvaluationConfig):
        kind = type(item.default)
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, help="default: as in the artefact's config")
    values = vars(parser.parse_args())
    folder, prefix = values.pop("artefact"), EMPTY_THINK if values.pop("force_empty_think") else ""
    try:
        table, _ = evaluate(folder, {name: value for name, value in values.items() if value is not None}, prefix)
    except InvalidInput as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(table)
    return 0
