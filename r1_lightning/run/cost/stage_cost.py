"""Counts the bytes, tokens and FLOPs of a configured stage on a model without memory (`model/cost.py`).

The length of completions is unknown beforehand: unless a length is given, it is the length limit, so memory, tokens and FLOPs are
upper bounds. Sampling and updates take turns, so the peak memory is the lasting memory plus the larger of the two. Short-lived
copies, and the rollout itself, are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning as L
import torch
from omegaconf import DictConfig

from r1_lightning.artefacts.store import Artefact
from r1_lightning.model import cost
from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.masked_attention import is_dense
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.mtp_drafts import DRAFTED_COLUMNS, SPARE_COLUMNS
from r1_lightning.rollout.vllm_sampler import SCORED_TOKENS
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.config.declarations import class_of
from r1_lightning.run.config.inject import inject
from r1_lightning.run.cost.counted import CountedData, StepLoad, counting_of
from r1_lightning.stages.muon import state_bytes
from r1_lightning.types.errors import require


class Memory(NamedTuple):
    """One kind of memory: its name, its size in bytes, and a note."""

    name: str
    size: int
    note: str


class Work(NamedTuple):
    """One part of an optimizer step: its tokens and FLOPs."""

    name: str
    tokens: float
    flops: float


@dataclass(frozen=True)
class EmptyStage:
    """A stage as `run` would build it, but with a model that has shapes and no values."""

    config: DictConfig
    parts: dict[str, Any]
    module: L.LightningModule
    data: CountedData

    @classmethod
    def of(cls, config: DictConfig, base: Artefact | None) -> EmptyStage:
        """Build from a resolved configuration. `InvalidInput` for a kind of data that cannot be counted, or too short a row."""
        counting = counting_of(class_of(config.data))  # looked at before it is made: others may need parts not here
        allowed = f"what a step of {config.data['_target_']} takes is not known"
        require(counting is not None, "dry_run", True, allowed)
        parts = build_parts(config, base, is_empty=True)
        return cls(config, parts, inject(config.stage, parts), counting(inject(config.data, parts)))

    @property
    def prompts(self) -> Sequence[Sequence[int]]:
        """The prompts of the first rollout; empty in pre-training."""
        return self.data.prompts

    @property
    def backbone(self) -> Any:
        return self.parts["backbone"]

    @property
    def mtp_depth(self) -> int:
        """Number of MTP modules that train."""
        return self.backbone.config.mtp_depth if getattr(self.module, "mtp_loss_weight", 0.0) > 0 else 0

    @property
    def has_reference(self) -> bool:
        """True if the stage holds a frozen copy of the model."""
        return cost.tensor_bytes(self.module) > cost.tensor_bytes(self.backbone)

    @property
    def engine(self) -> Any:
        """The engine that samples in place of our own sampler, in its own memory; None if there is none."""
        sampler = self.parts["rollout"].sampler if self.prompts else None
        return sampler if getattr(sampler, "is_engine", False) else None

    @property
    def is_drafting(self) -> bool:
        """True if the MTP module drafts tokens in sampling."""
        return bool(self.prompts) and getattr(self.parts["rollout"].sampler, "drafts", False)

    @property
    def attempts(self) -> int:
        """Largest ratio of sampled to trained prompts (dynamic sampling)."""
        return self.parts["rollout"].dynamic_sampling_attempts if self.prompts else 1

    @property
    def number(self) -> int:
        """Bytes per element of the compute type."""
        return cost.BF16 if getattr(self.backbone.precision, "compute", "fp32") == "bf16" else cost.FP32

    @property
    def is_fused(self) -> bool:
        """True if attention keeps no weights; when compiled for the CPU it does (`model.mla.spelled_out_attention`)."""
        if self.device_type == "cpu" and self.backbone.precision.static_shapes:
            return False
        return cost.is_attention_fused(self.backbone.config, self.device_type)

    @property
    def device_type(self) -> str:
        """The type of device on which the stage would run: "cpu" or "cuda"."""
        accelerator = self.config.trainer.get("accelerator", "auto")
        is_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
        return "cpu" if is_cpu else "cuda"

    def load(self, new_tokens: float | None = None) -> StepLoad:
        """Return the load of a step whose completions have `new_tokens` each (None: the length limit)."""
        return self.data.load(new_tokens)

    def micro_batch(self) -> MicroBatch:
        """Return the largest micro-batch."""
        return self.data.micro_batch(self.mtp_depth)

    def lasting_memory(self) -> list[Memory]:
        """Return the memory that lasts from the first step to the last (gradients live until the next backward)."""
        backbone = self.backbone
        idle = [] if self.mtp_depth else list(backbone.mtp_modules.parameters())
        weights = cost.tensor_bytes(backbone)
        gradients = cost.parameter_bytes(backbone) - sum(cost.parameter_bytes(m) for m in backbone.mtp_modules if idle)
        moments = state_bytes(self.parts["optim"].build(backbone), idle)
        optimizer = self.config.optim["_target_"].rpartition(".")[2].removesuffix("Config")
        reference = cost.tensor_bytes(self.module) - weights
        lines = [
            Memory("weights", weights, "FP32"),
            Memory("gradients", gradients, "FP32, without the MTP modules" if idle else "FP32"),
            Memory("optimizer state", moments, optimizer),
            Memory("reference", reference, "a frozen copy"),
        ]
        return [line for line in lines if line.size]

    def _mtp_cache(self, rows: int, length: int) -> int:
        return self.backbone.new_mtp_cache(rows, length).bytes

    def sampling_memory(self) -> list[Memory]:
        """Return the memory that sampling adds, for a wave of `max_rows`; empty in pre-training."""
        if not self.prompts:
            return []
        rollout: RolloutConfig = self.parts["rollout"]
        config, longest = self.backbone.config, max(map(len, self.prompts))
        length = longest + rollout.longest_completion
        if self.engine is not None:
            return self._scoring_memory(length)
        rows = min(rollout.max_rows, rollout.prompts_per_rollout * rollout.group_size)
        prompts = math.ceil(rows / rollout.group_size)
        if self.is_drafting:
            length += SPARE_COLUMNS
        cache = self.backbone.new_cache(rows, length)
        tables = cost.SAMPLER_TABLES * cost.FP32 * rows * config.vocab_size
        prefill = cost.prefill_bytes(config, prompts, longest, self.number)
        note = f"{rows:,} rows x {length:,} tokens"
        return [
            Memory("latent cache, sampling", cache.bytes, note),
            *(
                [Memory("MTP module's cache, sampling", self._mtp_cache(rows, length), note)]
                if self.is_drafting
                else []
            ),
            Memory("prefill, sampling", prefill, f"{prompts:,} prompts x {longest:,} tokens"),
            Memory("logits, sampling", tables, f"{rows:,} rows x {config.vocab_size:,} entries"),
        ]

    def _scoring_memory(self, length: int) -> list[Memory]:
        """Return the memory of the trainer's forward for old log-probs, if another engine samples."""
        rows, shape = max(1, SCORED_TOKENS // length), self.backbone.config
        batch = MicroBatch(rows, length, rows * length, 0)
        passing = cost.inference_bytes(shape, batch, self.number, self.is_fused)
        note = f"{rows:,} rows x {length:,} tokens"
        return [
            Memory("forward, old log-probs", passing, f"{note}, one layer at a time"),
            Memory("logits, old log-probs", cost.logit_bytes(shape.vocab_size, batch), "in tiles"),
        ]

    def update_memory(self) -> list[Memory]:
        """Return the memory that forward and backward of one micro-batch add."""
        batch, shape = self.micro_batch(), self.backbone.config
        number, is_fused = self.number, self.is_fused
        kept = cost.activation_bytes(shape, batch, number, is_fused)
        converted = cost.converted_weight_bytes(self.backbone, number, self.mtp_depth > 0)
        passing = cost.inference_bytes(shape, batch, number, is_fused) if self.has_reference else 0
        note = f"one micro-batch: {batch.rows:,} rows x {batch.row_tokens:,} tokens"
        if is_dense(batch.row_tokens) and not is_fused:
            note += "; the CPU keeps attention's weights"
        lines = [
            Memory("activations, update", kept, note),
            Memory("weights in BF16, update", converted, "made for every forward"),
            Memory("reference's forward", passing, "one layer at a time"),
            Memory("logits, update", cost.logit_bytes(shape.vocab_size, batch), f"{batch.targets:,} tokens, in tiles"),
        ]
        return [line for line in lines if line.size]

    def peak_bytes(self) -> int:
        """Peak memory in bytes."""
        lasting, sampling, update = (
            sum(line.size for line in lines)
            for lines in (self.lasting_memory(), self.sampling_memory(), self.update_memory())
        )
        return lasting + max(sampling, update)

    def work(self, load: StepLoad) -> list[Work]:
        """Return tokens and FLOPs of an optimizer step by part; parts that the stage does not have are left out."""
        shape, counts = self.backbone.config, cost.count_parameters(self.backbone)
        sampling = cost.sampling_flops(
            shape, counts, load.prompts, load.group_size, load.prompt_tokens, load.new_tokens
        )
        forward = cost.forward_flops(shape, counts, load.tokens, load.targets, load.context)
        update = cost.forward_flops(shape, counts, load.tokens, load.targets, load.context, self.mtp_depth)
        drawn = load.prompts * load.group_size * (load.prompt_tokens + load.new_tokens) if self.engine else 0.0
        old = cost.forward_flops(shape, counts, drawn, load.sampled_tokens, load.context) if self.engine else 0.0
        lines = [
            Work("sampling", load.sampled_tokens, sampling),
            Work("drafting", load.sampled_tokens, self._drafting_flops(load) if self.is_drafting else 0),
            Work("old log-probs", drawn, old),
            Work("reference", load.tokens, forward if self.has_reference else 0),
            Work("update", load.tokens, update * cost.TRAINING_FLOPS / cost.FORWARD_FLOPS),
        ]
        return [line for line in lines if line.flops]

    def _drafting_flops(self, load: StepLoad) -> float:
        """Return the FLOPs that drafting adds if no draft is accepted: the model runs each in vain, the module two columns each.

        The module's attention and its prefill are not counted, because it is one layer.
        """
        shape, counts = self.backbone.config, cost.count_parameters(self.backbone)
        whole, read = (
            cost.sampling_flops(shape, counts, load.prompts, load.group_size, load.prompt_tokens, new)
            for new in (load.new_tokens, 0)
        )
        module = counts.mtp_activated / shape.mtp_depth
        return whole - read + cost.FORWARD_FLOPS * load.sampled_tokens * (DRAFTED_COLUMNS * module + counts.head)
