"""Seconds per GRPO step, ours, on any device; `grpo_trl.py` puts TRL's beside it where TRL is installed.

The work is that of the benchmark on the CPU (`benchmarks/grpo_step.py` says what is equal on both sides), with a wider model: 32
prompts of the arithmetic task x 16 completions x 64 tokens, all of full length, one update. The parts are made here by their own
classes, with the numbers of configs/, so that this side needs no Hydra. TRL fuses its output head by default, which counts where
the vocabulary is large: so the model's may be larger than the tokenizer's (a random policy draws from all of it).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
import yaml

from benchmarks.gpu.device import Meter
from benchmarks.gpu.grpo_size import SEED, GrpoSize, title
from benchmarks.gpu.report import GIB, Row
from benchmarks.gpu.sampling import NO_END
from benchmarks.gpu.shapes import shape_of
from benchmarks.grpo_work import STEPS, LightningClock, Witness, WitnessedReward, check_moved, movement
from benchmarks.pairs import Measurement, Result, deterministic
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.sampler import Sampler, SamplerSettings
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.stages.strategy import staying
from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.text.tokenizer import train_tokenizer
from r1_lightning.types.tensors import GenerateFn

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def build_parts(size: GrpoSize) -> dict[str, Any]:
    """What both sides share, by the names that `run.build.parts` gives it."""
    task = task_parts(size.tokenizer_documents)
    vocab_size = max(size.vocab_size, task["tokenizer"].vocab_size)
    config = shape_of(size.width, vocab_size, size.n_layers, size.n_routed_experts)
    rollout = RolloutConfig(
        prompts_per_rollout=size.prompts,
        group_size=size.group_size,
        max_new_tokens=size.new_tokens,
        row_tokens=size.row_tokens,
        max_rows=size.completions,
    )
    return {**task, "backbone": DeepSeekBackbone(config, PlainPrecision("bf16"), SEED), "rollout": rollout}


def task_parts(tokenizer_documents: int) -> dict[str, Any]:
    """The arithmetic task with its tokenizer, and the optimizer and objective of `stage=grpo`."""
    task = _leaf("task/arithmetic")
    operations = {name: task["source"][name] for name in ("min_operations", "max_operations")}
    source, template = ArithmeticTask(**operations), TEMPLATES[task["template"]]
    texts = source.documents(SEED, 0, tokenizer_documents)
    return {
        "source": source,
        "template": template,
        "tokenizer": train_tokenizer(texts, task["tokenizer"]["vocab_size"], template.phrases()),
        "optim": AdamWConfig(**_leaf("stage/grpo")["optim"]),
        "objective": TokenLevelGRPO(),
    }


def _leaf(name: str) -> dict[str, Any]:
    """A file of configs/ as plain values."""
    leaf: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return leaf


def measurement(size: GrpoSize, parts: Mapping[str, Any], device_type: str) -> Measurement:
    """Seconds per step of the real stage and data module under Lightning's Trainer."""

    def measure() -> float:
        witness, backbone = Witness(), copy.deepcopy(parts["backbone"])
        sampler = Sampler(backbone, endless(parts))
        module, data = stage_of(backbone, parts, sampler, witness, STEPS)
        has_moved = movement(backbone)
        trainer(device_type, STEPS, [LightningClock(witness)]).fit(module, datamodule=data)
        check_moved(has_moved())
        return witness.seconds_per_step(size.work)

    return measure


def endless(parts: Mapping[str, Any]) -> SamplerSettings:
    """Settings of a sampler in which no completion ends before the limit."""
    return replace(parts["rollout"].sampler_settings(parts["tokenizer"], SEED), eos_ids=[NO_END])


def stage_of(
    backbone: Any, parts: Mapping[str, Any], sampler: GenerateFn, witness: Witness, steps: int
) -> tuple[GRPOModule, GroupedRolloutsDataModule]:
    """The stage and its data module, as `run` builds them, with a rule for a reward."""
    rollout = parts["rollout"]
    reward = WeightedSum([WitnessedReward(witness)])
    data = GroupedRolloutsDataModule(
        parts["source"], parts["tokenizer"], parts["template"], sampler, reward, rollout, SEED, steps
    )
    module = GRPOModule(
        backbone, parts["optim"], parts["objective"], steps, rollout.sampling_temperature, reference_refresh_steps=0
    )
    return module, data


def trainer(device_type: str, steps: int, callbacks: list[L.Callback], micro_batches: int = 1) -> L.Trainer:
    """Lightning's Trainer on one device, without any output."""
    return L.Trainer(
        **staying(torch.device("cpu") if device_type == "cpu" else torch.device(device_type, 0)),
        accelerator="gpu" if device_type == "cuda" else device_type,
        devices=1,
        max_steps=steps,
        max_epochs=1,
        accumulate_grad_batches=micro_batches,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def measure(size: GrpoSize, meter: Meter, no_trl: str, say: Callable[[str], None] = print) -> Iterator[Row]:
    """Our step; then the same row with TRL's beside it in alternating pairs, unless `no_trl` says why that cannot be."""
    parts = build_parts(size)
    peaks: dict[str, int | None] = {}
    ours = _with_peak(measurement(size, parts, meter.device.type), meter, peaks, "ours")
    with deterministic():
        values = [ours() for _ in range(1 if not no_trl else size.repeats)]
    alone = f"TRL not run: {no_trl}" if no_trl else "one run, before those beside TRL"
    yield Row("grpo", title(size), "s/step", median(values), alone, peaks["ours"])
    if no_trl:
        return
    from benchmarks.gpu.grpo_trl import beside_trl  # it imports TRL

    def observed(theirs: Measurement) -> Measurement:
        return _with_peak(theirs, meter, peaks, "trl")

    result = beside_trl(size, parts, ours, observed, meter.device.type, say)
    yield replace(_pair_row(size, result, peaks["trl"]), peak_bytes=peaks["ours"])


def _pair_row(size: GrpoSize, result: Result, trl_peak: int | None) -> Row:
    trl = result.theirs.median
    beside = f"TRL {trl:.3f} s/step ({result.theirs.setting}): {result.speed_up:.2f}x, median of {size.repeats} pairs"
    if trl_peak is not None:
        beside += f"; TRL's peak {trl_peak / GIB:.1f} GiB"
    details: dict[str, float | str | None] = {
        "trl_s_per_step": trl,
        "trl_setting": result.theirs.setting,
        "speed_up": result.speed_up,
    }
    return Row(
        "grpo", title(size), "s/step", result.ours.median, beside, details={**details, "trl_peak_bytes": trl_peak}
    )


def _with_peak(measurement: Measurement, meter: Meter, peaks: dict[str, int | None], side: str) -> Measurement:
    """The same measurement, which also keeps its side's high-water mark of the last time."""

    def measure() -> float:
        if meter.device.type == "cuda":
            torch.cuda.empty_cache()
        meter.forget_peak()
        value = measurement()
        peaks[side] = meter.peak_bytes()
        return value

    return measure
