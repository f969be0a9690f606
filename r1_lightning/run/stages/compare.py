"""`stage=compare`: evaluates every input of the stage on the same held-out problems, and writes the numbers as a data set.

    models/NAME.json          the measures of one input, written when all are computed
    data/part-00000.jsonl     a row per model and measure: value, bounds of its 95 % interval, fingerprint of the model
    table.txt                 the models side by side

A killed run goes on with the next model. The processes of a run evaluate each model together; the first one writes.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from r1_lightning.artefacts import data_set, store
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.progress import progress
from r1_lightning.artefacts.store import Artefact
from r1_lightning.evaluation.comparison import Comparison
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator, render_table
from r1_lightning.functional.intervals import Interval
from r1_lightning.run.build.device import mesh_of, stage_device
from r1_lightning.run.build.gathering import held_to_sample
from r1_lightning.run.build.stored import open_model
from r1_lightning.run.build.torch_setup import set_up_for, silence_warnings
from r1_lightning.run.checks.evaluation import check_prompt_lengths, evaluation_settings
from r1_lightning.run.config.inject import inject
from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.types.errors import require
from r1_lightning.types.processes import Processes, processes_now
from r1_lightning.types.text import Problem

MODELS = "models"
BOUNDS = ("value", "low", "high")


def run_comparison(
    config: DictConfig, stage_name: str, folder: Path, inputs: Mapping[str, Artefact]
) -> Mapping[str, float]:
    """Evaluate the `inputs` that have no measures yet, then write the table and the rows.

    Raises `InvalidInput` if there is nothing to compare, and for an input that is not a language model.
    """
    silence_warnings()
    set_up_for(config)
    require(bool(inputs), "stage.inputs", dict(inputs), "nothing to compare: name models, NAME: {experiment: ...}")
    comparison: Comparison = inject(config.stage, {})
    settings = comparison.settings(evaluation_settings(config) or EvaluationConfig())
    source = instantiate(config.task.source, _convert_="all")
    problems, requests = source.held_out_problems(settings.problems), comparison.requests_of(source)
    processes = processes_now()
    measured = {}
    for name, artefact in inputs.items():
        # One file per model: after a kill only the model in progress is evaluated again.
        path = folder / MODELS / f"{name}.json"
        if not processes.from_main(path.is_file):
            measures = _measure(name, artefact, config, comparison, settings, problems, requests, processes)
            gc.collect()  # a model in shares refers to itself, and would stay beside the next one
            if processes.is_main:
                path.parent.mkdir(exist_ok=True)
                store.write_json(path, {key: list(_numbers(measure)) for key, measure in measures.items()})
        # Rank 0 reads for all: a network file system may show other machines the file a while later.
        measured[name] = processes.from_main(partial(_read, path))
    metrics = {f"compare/{name}/{key}": m.value for name, measures in measured.items() for key, m in measures.items()}
    if processes.is_main:
        _write(
            folder,
            inputs,
            measured,
            f"{len(problems)} held-out problems, {settings.samples} samples each, 95 % intervals",
        )
    return metrics


def _write(
    folder: Path, inputs: Mapping[str, Artefact], measured: Mapping[str, Mapping[str, Measure]], title: str
) -> None:
    """Write the measures as rows and as a table."""
    rows = [
        {"model": name, "fingerprint": inputs[name].fingerprint[:SHORT_DIGITS], "measure": key}
        | {key: None if math.isnan(number) else number for key, number in zip(BOUNDS, _numbers(measure), strict=True)}
        for name, measures in measured.items()
        for key, measure in measures.items()
    ]
    data_set.write_lines(data_set.part_path(folder, 0), rows)
    store.write_text(folder / store.TABLE, render_table(title, measured) + "\n")


def _measure(
    name: str,
    artefact: Artefact,
    config: DictConfig,
    comparison: Comparison,
    settings: EvaluationConfig,
    problems: list[Problem],
    requests: Mapping[str, Any],
    processes: Processes,
) -> dict[str, Measure]:
    model = open_model(artefact, instantiate(config.precision), f"stage.inputs.{name}.folder")
    # A checkpoint has none of ours, so the task's is used.
    template = model.template(TEMPLATES[config.task.template], config.task.get("instruction"))
    tokenizer = model.tokenizer.ending_with(template.end)
    backbone = model.backbone(stage_device(config), mesh_of(config))
    evaluator = Evaluator(problems, tokenizer, template, settings, config.seed, processes=processes)
    check_prompt_lengths(evaluator, model.shape.max_positions)
    total = len(problems) * settings.samples + sum(map(len, requests.values()))
    bar_of = progress(total, f"evaluating {name}", "completion")
    with bar_of as bar, held_to_sample(backbone, config) as whole:
        return comparison(evaluator, requests, whole, bar.update)


def _numbers(measure: Measure) -> tuple[float, float, float]:
    return measure.value, measure.interval.low, measure.interval.high


def _read(path: Path) -> dict[str, Measure]:
    stored = json.loads(path.read_text(encoding="utf-8"))
    known = {
        key: [math.nan if n is None else n for n in numbers] for key, numbers in stored.items()
    }  # null: of no sample
    return {key: Measure(value, Interval(value, low, high)) for key, (value, low, high) in known.items()}
