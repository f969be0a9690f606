"""Counts the bytes, tokens and FLOPs of a configured stage on a model without memory (`networks`).

The length of completions is unknown beforehand: unless a length is given, it is the length limit, so memory, tokens and FLOPs are
upper bounds. Sampling and updates take turns, so the peak memory is the lasting memory plus the larger of the two. Short-lived
copies, the rollout itself and the evaluation after training are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from r1_lightning.artefacts.store import Artefact
from r1_lightning.data.teacher_data import CachedTeacherDataModule
from r1_lightning.model import cost
from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.masked_attention import is_dense
from r1_lightning.rollout.completion_scores import SCORED_TOKENS
from r1_lightning.rollout.mtp_drafts import DRAFTED_COLUMNS, SPARE_COLUMNS
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.run.build.device import REFERENCE
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.config.declarations import class_of
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.keys import JUDGE, TEACHER
from r1_lightning.run.cost import value_model
from r1_lightning.run.cost.beside import DATA, Source, data_folder, is_named, models_beside
from r1_lightning.run.cost.counted import counting_of
from r1_lightning.run.cost.load import CountedData, StepLoad, Wave
from r1_lightning.run.cost.logits import has_logits, logit_bytes
from r1_lightning.run.cost.networks import Network, network_of
from r1_lightning.run.cost.sampling_cost import Memory, Work, device_type_of, is_elsewhere, sampling_bytes, wave_memory
from r1_lightning.run.cost.sharing import CHECKPOINT
from r1_lightning.stages.muon import state_bytes
from r1_lightning.types.errors import require

REFERENCE_FORWARD, TEACHER_FORWARD, LOSS = "reference's forward", "teacher's forward", "logits, update"
BLOCK = "block, update"
TURNS = (REFERENCE_FORWARD, TEACHER_FORWARD, LOSS, BLOCK)


def update_bytes(lines: Sequence[Memory]) -> int:
    """Bytes that an update takes at one time: a frozen model's forward, then the loss, then a block computed again."""
    turns = [line.size for line in lines if line.name in TURNS]
    return sum(line.size for line in lines) - sum(turns) + max(turns, default=0)


@dataclass(frozen=True)
class EmptyStage:
    """A stage as `run` would build it, but with a model that has shapes and no values; `beside` are its other models by role."""

    config: DictConfig
    parts: dict[str, Any]
    module: L.LightningModule
    data: CountedData
    beside: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: DictConfig, base: Artefact | None, inputs: Mapping[str, Source] | None = None) -> EmptyStage:
        """Build from a resolved configuration. `InvalidInput` for a kind of data that cannot be counted, or too short a row."""
        counting = counting_of(class_of(config.data))  # looked at before it is made: others may need parts not here
        allowed = f"what a step of {config.data['_target_']} takes is not known"
        require(counting is not None, "dry_run", True, allowed)
        inputs = inputs or {}
        parts = {**build_parts(config, base, is_empty=True), **data_folder(inputs)}
        beside = models_beside(inputs, parts)
        if TEACHER in beside:
            vocabulary, compute = parts["tokenizer"].vocab_size, parts["backbone"].precision.compute
            parts[TEACHER] = Teacher(lambda: beside[TEACHER], "", vocabulary, compute)
        parts.setdefault(JUDGE, None)
        module = inject(config.stage, {**parts, "max_steps": config.stage.max_steps or 1})
        given = config.data.get("examples")
        is_here = "data_folder" in parts or (DATA not in inputs and is_named(given))
        return cls(config, parts, module, counting(inject(config.data, parts), is_here), beside)

    @property
    def prompts(self) -> Sequence[Sequence[int]]:
        """The prompts of the first step that samples; empty if nothing is sampled."""
        return self.data.prompts

    @property
    def backbone(self) -> Any:
        return self.parts["backbone"]

    @cached_property
    def network(self) -> Network:
        return network_of(self.backbone, self.device_type)

    @property
    def mtp_depth(self) -> int:
        """Number of MTP modules that train."""
        depth = getattr(self.backbone.config, "mtp_depth", 0)
        return depth if getattr(self.module, "mtp_loss_weight", 0.0) > 0 else 0

    @property
    def has_reference(self) -> bool:
        """True if the stage runs a second forward, for reference log-probs: of a frozen copy, or of the base under adapters."""
        return getattr(getattr(self.module, "reference", None), "backbone", None) is not None

    @property
    def critic(self) -> Any:
        """PPO's value model; None of any other stage."""
        return getattr(self.module, "critic", None)

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
    def micro_batches(self) -> int:
        """Number of micro-batches of an optimizer step."""
        own = getattr(getattr(self.data, "data", None), "micro_batches", 1)
        return int(getattr(getattr(self.data, "config", None), "micro_batches", own))

    @property
    def device_type(self) -> str:
        """The type of device on which the stage would run: "cpu" or "cuda"."""
        return device_type_of(self.config)

    def load(self, new_tokens: float | None = None) -> StepLoad:
        """Return the load of a step whose completions have `new_tokens` each (None: the length limit)."""
        load = self.data.load(new_tokens)
        return load if has_logits(self.module) else replace(load, targets=0.0)

    def micro_batch(self) -> MicroBatch:
        """Return the largest micro-batch."""
        batch = self.data.micro_batch(self.mtp_depth)
        return batch if has_logits(self.module) else replace(batch, targets=0)

    def lasting_memory(self) -> list[Memory]:
        """Return the memory that lasts from the first step to the last (gradients live until the next backward)."""
        backbone: Any = getattr(self.module, "backbone", self.backbone)  # a reward model has a head of its own
        modules = getattr(self.backbone, "mtp_modules", [])
        idle = [] if self.mtp_depth else [p for part in modules for p in part.parameters()]
        idle += self._unused_head()
        weights = cost.tensor_bytes(backbone)
        trained = [p for p in backbone.parameters() if p.requires_grad and not any(p is other for other in idle)]
        gradients = sum(p.numel() * p.element_size() for p in trained)
        moments = state_bytes(self.parts["optim"].build(backbone), idle)
        optimizer = self.config.optim["_target_"].rpartition(".")[2].removesuffix("Config")
        theirs, their_moments = value_model.weights_and_moments(self.critic, self.parts["optim"])
        reference = 0 if is_elsewhere(self.config, REFERENCE) else cost.tensor_bytes(self.module) - weights - theirs
        saved = weights + moments + theirs + their_moments
        lines = [
            Memory("weights", weights, "FP32"),
            Memory("gradients", gradients, "FP32, without the MTP modules" if idle and len(modules) else "FP32"),
            Memory("optimizer state", moments, optimizer),
            Memory("reference", reference, "a frozen copy"),
            *value_model.lasting(self.critic, self.parts["optim"]),
            Memory(CHECKPOINT, saved if self._copies_checkpoints else 0, "a copy"),
            *(
                Memory(role, cost.tensor_bytes(model), "frozen")
                for role, model in self.beside.items()
                if self._stays(role)
            ),
        ]
        return [line for line in lines if line.size]

    def _unused_head(self) -> list[torch.Tensor]:
        """A reward model scores without the output head, which gets no gradient unless it is the embedding as well."""
        counts = self.network.parameters()
        is_unused = self.module.backbone is not self.backbone and counts.embeddings > counts.head
        return [self.backbone.head.weight] if is_unused else []

    @property
    def _copies_checkpoints(self) -> bool:
        """True if the copy of a checkpoint is in the memory that is counted: a GPU's goes to the host."""
        return bool(self.config.trainer.get("checkpoint_async")) and self.device_type == "cpu"

    def _stays(self, role: str) -> bool:
        """Whether the model of this role is on the device while the stage trains: a cached teacher is gone by then."""
        return not (role == TEACHER and self._caches_teacher) and not is_elsewhere(self.config, role)

    def _reference_passing(self, batch: MicroBatch) -> int:
        """Bytes of the reference's forward on this device."""
        if not self.has_reference or is_elsewhere(self.config, REFERENCE):
            return 0
        copy: Any = getattr(self.module.reference, "backbone", None)  # its linear layers may be BF16 already
        network = network_of(copy, self.device_type) if isinstance(copy, torch.nn.Module) else self.network
        return network.passing(batch)

    @property
    def _caches_teacher(self) -> bool:
        return isinstance(getattr(self.data, "data", None), CachedTeacherDataModule)

    def wave(self) -> Wave | None:
        """Return the largest wave of sampling; None if the stage does not sample."""
        return self.data.wave()

    def sampling_memory(self, wave: Wave | None = None) -> list[Memory]:
        """Return the memory that sampling adds, for this wave or the largest; empty if the stage does not sample."""
        wave = wave or self.wave()
        if wave is None:
            return []
        if self.engine is not None:
            return self._scoring_memory(wave.length)
        return wave_memory(self.network, wave, SPARE_COLUMNS if self.is_drafting else 0, self.is_drafting)

    def _scoring_memory(self, length: int) -> list[Memory]:
        """Return the memory of the trainer's forward for old log-probs, if another engine samples."""
        rows = max(1, SCORED_TOKENS // length)
        batch = MicroBatch(rows, length, rows * length, 0)
        note = f"{rows:,} rows x {length:,} tokens"
        return [
            Memory("forward, old log-probs", self.network.passing(batch), f"{note}, one layer at a time"),
            Memory(
                "logits, old log-probs", cost.logit_bytes(self.network.vocab_size, batch, self.device_type), "in tiles"
            ),
        ]

    def update_memory(self, batch: MicroBatch | None = None, recompute: bool | None = None) -> list[Memory]:
        """Return the memory that forward and backward of a micro-batch add: of this one, or of the largest.

        `recompute` says whether blocks are computed again; None: as configured.
        """
        batch, network = batch or self.micro_batch(), self.network
        kept = network.kept(batch)
        recomputes = self.backbone.recompute if recompute is None else recompute
        passing = self._reference_passing(batch)
        teacher = self.beside.get(TEACHER) if self._stays(TEACHER) else None  # in this device's memory
        teaching = network_of(teacher, self.device_type).passing(batch) if teacher is not None else 0
        rows = f"one micro-batch: {batch.rows:,} rows x {batch.row_tokens:,} tokens"
        spelled_out = is_dense(batch.row_tokens) and not network.is_fused
        fused = f"{rows}; the CPU keeps attention's weights" if spelled_out else rows
        logits = logit_bytes(self.module, network, batch, self.micro_batches)
        lines = [
            Memory(
                "activations, update",
                kept.recomputed - kept.block if recomputes else kept.total,
                fused,
            ),
            Memory("weights in BF16, update", network.converted(self.mtp_depth > 0), "made for every forward"),
            *value_model.update(self.critic, network, batch, recomputes),
            Memory(BLOCK, kept.block if recomputes else 0, "one at a time, computed again"),
            Memory(REFERENCE_FORWARD, passing, "one layer at a time"),
            Memory(TEACHER_FORWARD, teaching, "one layer at a time"),
            Memory(LOSS, logits, f"{batch.targets:,} tokens, in tiles"),
        ]
        return [line for line in lines if line.size]

    def peak_bytes(self) -> int:
        """Peak memory in bytes."""
        lasting = sum(line.size for line in self.lasting_memory())
        return lasting + max(sampling_bytes(self.sampling_memory()), update_bytes(self.update_memory()))

    def work(self, load: StepLoad) -> list[Work]:
        """Return tokens and FLOPs of an optimizer step by part; parts that the stage does not have are left out."""
        network = self.network
        forward = network.forward_flops(load)
        update = network.forward_flops(load, self.mtp_depth)
        drawn = load.prompts * load.group_size * (load.prompt_tokens + load.new_tokens) if self.engine else 0.0
        scored = StepLoad(drawn, load.sampled_tokens, load.context)
        teacher = self.beside.get(TEACHER)
        teaching = network_of(teacher, self.device_type).forward_flops(load) if teacher is not None else 0.0
        lines = [
            Work("sampling", load.sampled_tokens, network.sampling_flops(load, load.new_tokens) if load.prompts else 0),
            Work("drafting", load.sampled_tokens, self._drafting_flops(load) if self.is_drafting else 0),
            Work("old log-probs", drawn, network.forward_flops(scored) if self.engine else 0),
            Work("reference", load.tokens, forward if self.has_reference else 0),
            Work("teacher", load.tokens, teaching),
            Work("update", load.tokens, update * cost.TRAINING_FLOPS / cost.FORWARD_FLOPS),
            *value_model.work(self.critic, network, load),
        ]
        return [line for line in lines if line.flops]

    def _drafting_flops(self, load: StepLoad) -> float:
        """Return the FLOPs that drafting adds if no draft is accepted: the model runs each in vain, the module two columns each.

        The module's attention and its prefill are not counted, because it is one layer.
        """
        counts = self.network.parameters()
        whole, read = (self.network.sampling_flops(load, new) for new in (load.new_tokens, 0))
        module = counts.mtp_activated / self.backbone.config.mtp_depth
        return whole - read + cost.FORWARD_FLOPS * load.sampled_tokens * (DRAFTED_COLUMNS * module + counts.head)
