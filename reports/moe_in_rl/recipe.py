"""Mixtures of experts in RL: what becomes of the router, and is the MTP loss worth keeping? Six settings, several seeds.

The expert biases may stay frozen, go on balancing the load, or stay while the sampler's own choice of experts is replayed in
the training forward (`stage.router`); the MTP modules may be left alone or go on learning (`stage.mtp_loss_weight`). Every
seed pre-trains one base, from which all six settings start. Rows are appended to `results.csv` as they come, with commit and
fingerprint; a run that is there is not made again, and rows of another configuration are refused.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import CONFIG, Artefact
from r1_lightning.functional.masking import targets_ahead
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.checks.stored_config import read_config
from r1_lightning.run.commands.recipe import Made, Recipe, read, spread
from r1_lightning.run.commands.report_runs import made_by, train
from r1_lightning.stages.grpo import ROUTERS
from r1_lightning.types.tensors import TokenBatch

EXPERIMENT = "experiment=r1_zero_tiny"
FIELDS = ("seed", "router", "mtp_loss_weight", "measure", "value", "fingerprint", "commit")
MTP_WEIGHTS = (0.0, 0.1)  # dropped, or kept at V3's later weight (section 4.2)
LAST_STEPS = 20
# Of metrics.csv: the mean over the last steps, under the metric's own name.
LOGGED = ("rollout/reward_mean", "policy/kl_ref", "policy/clip_fraction", "policy/entropy", "moe/max_violation")
MTP_PROBLEMS = 200
SHOWN = {
    "eval/arithmetic/pass_at_1": "strict accuracy, held out",
    "eval/arithmetic/pass_at_1_lenient": "lenient accuracy, held out",
    "reward_whole_run": "reward, mean over the whole run",
    "rollout/reward_mean": "reward",
    "policy/kl_ref": "KL to the reference, nats",
    "policy/clip_fraction": "clipped tokens",
    "policy/entropy": "entropy, nats",
    "moe/max_violation": "expert load, MaxVio",
    "mtp_agreement": "tokens that the MTP module foresees",
}


def overrides(seed: int, router: str, mtp_loss_weight: float) -> list[str]:
    """The arguments of `scripts/train.py` for one setting."""
    return [EXPERIMENT, f"seed={seed}", f"stage.router={router}", f"stage.mtp_loss_weight={mtp_loss_weight}"]


def measures_of(artefact: Artefact) -> dict[str, float]:
    """What one finished run shows: held-out accuracy, its last steps, and what its MTP module foresees."""
    rows = [row for row in read(artefact.folder / METRICS) if row.get("train/loss")]
    final = {name: artefact.metrics[name] for name in SHOWN if name.startswith("eval/")}
    measures = {name: math.nan if value is None else value for name, value in final.items()}
    measures["reward_whole_run"] = mean(float(row["rollout/reward_mean"]) for row in rows)
    for name in LOGGED:
        measures[name] = mean(float(row[name]) for row in rows[-LAST_STEPS:])
    measures["mtp_agreement"] = mtp_agreement(artefact)
    return measures


@torch.no_grad()
def mtp_agreement(artefact: Artefact, problems: int = MTP_PROBLEMS) -> float:
    """How often the first MTP module's most likely token is the one that the model then draws, on its own completions.

    It is how good a draft for speculative decoding the module would be.
    """
    parts = build_parts(read_config(artefact.folder / CONFIG, trust_targets=False), artefact)
    backbone, tokenizer = parts["backbone"].eval(), parts["tokenizer"]
    questions = [problem.question for problem in parts["source"].held_out_problems(problems)]
    prompts = tokenizer.encode_prompts(parts["template"], questions)
    drawn = parts["generate"](prompts, 1, rollout_keys(0, len(prompts), 1))
    lengths = drawn.completion_mask.sum(1).tolist()
    texts = [[*p, *ids[:n]] for p, ids, n in zip(prompts, drawn.completion_ids.tolist(), lengths, strict=True)]
    foreseen = torch.cat([foresees(backbone, len(prompt), text) for prompt, text in zip(prompts, texts, strict=True)])
    return foreseen.double().mean().item()


def foresees(backbone: DeepSeekBackbone, n_prompt: int, text: Sequence[int]) -> Tensor:
    """Whether the first MTP module's most likely token is the one that follows: bool, one per completion token of `text`.

    A token is foreseen from two places before it, so the first `2 - n_prompt` tokens of a completion cannot count.
    """
    batch = TokenBatch.of_whole_rows(torch.tensor([list(text)]))
    targets, has_target = targets_ahead(batch.token_ids, batch.document_ids, 2)  # depth 1 looks two places on
    positions = torch.arange(len(text))
    wanted = has_target & (positions + 2 >= n_prompt)
    guesses = backbone.unembed(backbone.hidden(batch).mtp[0][wanted]).argmax(-1)
    return guesses == targets[wanted]


def render(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table: a line per measure, a column per setting, mean over seeds and [smallest, largest]."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["measure"], row["router"], row["mtp_loss_weight"]].append(float(row["value"]))
    settings = [(router, str(weight)) for router, weight in itertools.product(ROUTERS, MTP_WEIGHTS)]
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        f"Seeds: {', '.join(seeds)}. Mean over seeds, [smallest, largest]; MTP: the weight of its loss.",
        "",
        "| | " + " | ".join(f"{router}, MTP {weight}" for router, weight in settings) + " |",
        "|---" * (len(settings) + 1) + "|",
    ]
    for measure, label in SHOWN.items():
        cells = [spread(values[measure, *setting], digits=4) for setting in settings]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def make(seed: int, router: str, mtp_loss_weight: float, root: Path) -> Made:
    """The rows of one run."""
    artefact, _ = train(overrides(seed, router, mtp_loss_weight), root)
    common = {"seed": seed, "router": router, "mtp_loss_weight": mtp_loss_weight}
    measures = measures_of(artefact).items()
    return Made([{**common, "measure": name, "value": f"{value:.6g}", **made_by(artefact)} for name, value in measures])


RECIPE = Recipe(
    seeds=[0, 1, 2],
    key={"seed": int, "router": str, "mtp_loss_weight": float},
    fields=FIELDS,
    runs=lambda options: itertools.product(options.seeds, ROUTERS, MTP_WEIGHTS),
    overrides=overrides,
    make=make,
    table=render,
)
