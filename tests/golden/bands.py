"""Makes the shipped bands of reports' curves; as a program it writes them to r1_lightning/review/expected.

Each line of `SOURCES` is a band: the report whose curves.csv holds at least 3 seeds, the rows of it that count, the metric that
each column was, and what was typed for one run, whose settings are the band's. Bands of other runs come from
`python scripts/review_run.py --band` and are not made here.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a program: the checkout, installed or not

from omegaconf import OmegaConf

from r1_lightning.review.bands import LEAST_SEEDS, Band, make_band
from r1_lightning.review.expected import text_of
from r1_lightning.review.run_files import settings_of
from r1_lightning.review.series import Series
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from tests.support.commands import CONFIGS

ROOT = CONFIGS.parent
EXPECTED = ROOT / "r1_lightning" / "review" / "expected"
ROLLOUT = {
    name: f"rollout/{name}"
    for name in (
        "reward_mean",
        "accuracy_mean",
        "format_mean",
        "language_mean",
        "completion_tokens_mean",
        "mixed_language_fraction",
    )
}
HACKING = {
    "score": "score_mean",
    "accuracy": "accuracy_mean",
    "format": "format_mean",
    "tokens": "completion_tokens_mean",
}
FP8_IN_RL = 'stage=grpo model=tiny task=arithmetic stage.max_steps=100 stage.parent_overrides=["precision=fp32"]'
FP8_VS_BF16 = (
    "stage=pretrain model=tiny task=arithmetic optim=adamw optim.lr=3.0e-3 optim.warmup_steps=30 optim.final_lr_factor=0.1 "
    "stage.max_steps=300"
)
# Of a report's tasks: the names of the bands begin so, and what was typed.
LANGUAGE = {
    "mathematics": ("language_consistency", "experiment=r1_zero_tiny task=arithmetic_mixed reward=r1_stage_1"),
    "code": (
        "language_consistency_code",
        "experiment=r1_zero_tiny task=programs reward=r1_stage_1_code rollout.prompts_per_rollout=16 rollout.group_size=8 "
        "stage.evaluation.problems=200 stage.evaluation.samples=4",
    ),
}


@dataclass(frozen=True)
class Source:
    """Where a band comes from. `step_of` maps a row's step to the last step, from 0, that its point is the mean of."""

    report: str
    typed: str
    rows: Mapping[str, str]
    metrics: Mapping[str, str]
    window: int = 1
    step_of: Callable[[int], int] = lambda step: step


def _stage(stage: str) -> dict[str, str]:
    return {"experiment": "r1_family_tiny", "stage": stage}


def _fp8(arm: str, typed: str) -> dict[str, Source]:
    return {
        f"fp8_in_rl_{arm}": Source("fp8_in_rl", f"{FP8_IN_RL} {typed}", {"arm": arm}, ROLLOUT),
    }


SOURCES = {
    "r1_zero_tiny": Source("r1_zero_tiny", "experiment=r1_zero_tiny", {}, ROLLOUT),
    "r1_zero_family": Source("r1_tiny", "experiment=r1_zero_family", _stage("r1_zero"), ROLLOUT),
    "r1_dev2_tiny": Source("r1_tiny", "experiment=r1_dev2_tiny", _stage("dev2"), ROLLOUT),
    "r1_model_tiny": Source("r1_tiny", "experiment=r1_model_tiny", _stage("r1"), ROLLOUT),
    "r1_student_rl_tiny": Source("r1_tiny", "experiment=r1_student_rl_tiny", _stage("student_rl"), ROLLOUT),
    **{
        f"{name}_{weight}": Source(
            "language_consistency",
            f"{typed} reward.weights.language={weight}",
            {"task": task, "weight": weight},
            ROLLOUT,
        )
        for task, (name, typed) in LANGUAGE.items()
        for weight in ("0.0", "1.0")
    },
    **_fp8("bf16", "precision=bf16"),
    **_fp8("fp8", "precision=fp8_emulated"),
    **_fp8("fp8_rollouts", "precision=fp8_emulated precision.rollouts_only=true"),
    **{
        f"fp8_vs_bf16_{arm}": Source(
            "fp8_vs_bf16",
            f"{FP8_VS_BF16} {typed}",
            {"arm": arm},
            {"loss": "train/loss"},
            window=10,
            step_of=lambda step: step + 9,  # the report names the first step of each ten
        )
        for arm, typed in {
            "bf16": "precision=bf16",
            "fp32": "precision=fp32",
            "fp8": "precision=fp8_emulated",
            "blocks": "precision=fp8_emulated precision.gradient_blocks=true",
        }.items()
    },
    **{
        name: Source(
            "reward_hacking",
            f"experiment=reward_hacking {typed}",
            {"run": run},
            {column: f"rollout/{metric}" for column, metric in HACKING.items()},
            window=10,
            step_of=lambda step: step - 1,  # the report counts steps from 1
        )
        for name, run, typed in (
            ("reward_hacking", "score", ""),
            ("reward_hacking_rule", "rule", "reward.weights.score=0.0 reward.weights.accuracy=1.0"),
        )
    },
}


def curves_of(source: Source) -> dict[str, dict[int, Series]]:
    """Metric -> seed -> its curve, from the report's curves.csv."""
    points: dict[str, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    with (ROOT / "reports" / source.report / "curves.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if any(row[key] != value for key, value in source.rows.items()):
                continue
            for column, metric in source.metrics.items():
                if row.get(column):
                    points[metric][int(row["seed"])].append((source.step_of(int(row["step"])), float(row[column])))
    return {
        metric: {seed: Series(*map(tuple, zip(*sorted(pairs), strict=True))) for seed, pairs in sorted(by_seed.items())}
        for metric, by_seed in points.items()
    }


def band_of(name: str, source: Source) -> Band | None:
    """The band of one source; None while its report has too few seeds."""
    curves = curves_of(source)
    seeds = sorted(next(iter(curves.values()), ()))
    if len(seeds) < LEAST_SEEDS:
        return None
    config = resolved(compose_stage(source.typed.split()).config)
    settings = settings_of(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    return make_band(
        name, {metric: list(one.values()) for metric, one in curves.items()}, seeds, source.window, settings
    )


def bands() -> dict[str, str]:
    """Name -> the text of its file, for every source with enough seeds."""
    with composing():
        made = {name: band_of(name, source) for name, source in SOURCES.items()}
    return {name: text_of(band) for name, band in made.items() if band is not None}


if __name__ == "__main__":
    for name, text in bands().items():
        (EXPECTED / f"{name}.json").write_text(text, encoding="utf-8")
