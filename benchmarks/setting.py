"""What both sides share: the model's shape, its weights, the tokenizer, the problems, and how much work there is.

Everything comes from the project's own configuration, composed as a run composes it: `model=tiny` without its MTP module
(HuggingFace's class trains none), the arithmetic task with its tokenizer, the optimizer and the objective of `stage=grpo`.
Weights are those of a fresh initialisation. HuggingFace's model gets the very same tensors through `model/hf_weights.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.hf_config import config_to_hf
from r1_lightning.model.hf_weights import state_to_hf
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.config.compose import compose_stage, composing

NEVER = -1  # an end-of-sequence id that no model samples, so that every completion has full length
# transformers' two ways to run experts that make sense here: grouped products (its default) and its loop over experts.
EXPERTS = ("grouped_mm", "eager")


@dataclass(frozen=True)
class Size:
    """How much work one measurement is.

    GRPO and sampling: `prompts` x `group_size` completions of `new_tokens`. Pre-training: `train_steps` optimizer steps of
    `train_rows` x `train_row_tokens` tokens. The rest are candidates: rows that a call of `generate` samples together, rows
    of TRL's per-device batch, tokens of our packed training rows, parts in which we compute a minibatch. `loss_shape` is tokens,
    vocabulary and width of the memory contest.
    """

    prompts: int
    group_size: int
    new_tokens: int
    train_steps: int
    train_rows: int
    train_row_tokens: int
    generate_rows: tuple[int, ...]
    trl_batches: tuple[int, ...]
    row_tokens: tuple[int, ...]
    micro_batches: tuple[int, ...]
    tokenizer_documents: int
    loss_shape: tuple[int, int, int]
    compile: bool  # whether our side also tries its compiled core, for which a rehearsal has no time

    @property
    def completions(self) -> int:
        return self.prompts * self.group_size


# 42 rows of 96 tokens are the default of configs/data/text.yaml; 32 x 16 completions of 64 tokens that of rollout.
FULL = Size(32, 16, 64, 10, 42, 96, (128, 512), (64, 128, 512), (96, 256), (2, 8), 4000, (8192, 129_280, 512), True)
QUICK = Size(4, 4, 8, 2, 4, 32, (16,), (8, 16), (64,), (2,), 200, (256, 2000, 32), False)


@dataclass(frozen=True)
class World:
    """The shared parts as one candidate sees them: `precision` ("fp32" or "bf16"), and how our side computes.

    It may compile, and beside training in BF16 `decode` in FP32, which the native decoder does.
    """

    size: Size
    precision: str = "fp32"
    compile: bool = False
    decode: str | None = None

    @property
    def name(self) -> str:
        """For tables: "fp32", "bf16 compiled" or "bf16 compiled, fp32 decoding"."""
        return self.precision + " compiled" * self.compile + (f", {self.decode} decoding" if self.decode else "")

    def ours(self) -> list[World]:
        """What our side tries. BF16 without a compiler has never been the fastest on a CPU."""
        compiled = [World(self.size, precision, compile=True) for precision in ("fp32", "bf16")]
        return [World(self.size), *(compiled if self.size.compile else [])]

    def ours_of_rl(self) -> list[World]:
        """What our side tries in RL, where a BF16 update may follow a rollout in FP32."""
        mixed = replace(self, precision="bf16", compile=self.size.compile, decode="fp32")
        return [*self.ours(), mixed]

    def theirs(self) -> list[World]:
        """What the other side tries."""
        return [World(self.size, precision) for precision in ("fp32", "bf16")]

    @property
    def settings(self) -> tuple[str, ...]:
        """What else the configuration is told: nothing."""
        return ()

    @cached_property
    def config(self) -> DictConfig:
        """The configuration of `stage=grpo`, one optimizer step per rollout."""
        size = self.size
        return _composed(
            "stage=grpo",
            f"precision={self.precision}",
            f"precision.compile={self.compile}",
            f"+precision.decode={self.decode or 'null'}",
            "model.mtp_depth=0",
            f"task.tokenizer.training_documents={size.tokenizer_documents}",
            f"rollout.prompts_per_rollout={size.prompts}",
            f"rollout.group_size={size.group_size}",
            "rollout.minibatches_per_rollout=1",
            f"rollout.max_new_tokens={size.new_tokens}",
            f"rollout.max_rows={size.completions}",
            *self.settings,
        )

    @cached_property
    def pretrain_config(self) -> DictConfig:
        """The configuration of `stage=pretrain` with AdamW: Muon would sort HuggingFace's matrices by other names."""
        return _composed("stage=pretrain", "optim=adamw", "model.mtp_depth=0")

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        """What `run` would build for `stage=grpo`: source, tokenizer, template, optim, rollout, ..."""
        return build_parts(self.config, base=None)

    def backbone(self) -> DeepSeekBackbone:
        """A backbone of its own with the shared weights."""
        return copy.deepcopy(self.parts["backbone"])

    def hf_model(self, experts: str, eos_id: int | None = None) -> Any:
        """`DeepseekV3ForCausalLM` with the shared weights in FP32, strictly loaded, experts run as named."""
        tokenizer, backbone = self.parts["tokenizer"], self.parts["backbone"]
        fields = config_to_hf(
            backbone.config, bos_token_id=tokenizer.bos_id, eos_token_id=eos_id, pad_token_id=tokenizer.pad_id
        )
        model = DeepseekV3ForCausalLM(DeepseekV3Config(**fields))
        model.load_state_dict(state_to_hf(backbone.state_dict(), backbone.config), strict=True)
        model.set_experts_implementation(experts)
        return model

    def load_hf(self, folder: Path, experts: str) -> Any:
        """What `save_hf` wrote, read as TRL's users read it, experts run as named."""
        model = DeepseekV3ForCausalLM.from_pretrained(folder)
        model.set_experts_implementation(experts)
        return model

    def save_hf(self, folder: Path) -> None:
        """Write model and tokenizer into `folder` as `from_pretrained` reads them."""
        tokenizer = self.parts["tokenizer"]
        self.hf_model(EXPERTS[0], eos_id=tokenizer.eos_id).save_pretrained(folder)
        tokenizer.save(folder, self.parts["template"])

    def prompts(self, rollouts: int) -> list[str]:
        """The prompts of the first `rollouts` rollouts, in the order in which our data module serves them."""
        source, template, seed = self.parts["source"], self.parts["template"], self.config.seed
        problems = (source.train_problem(seed, index) for index in range(rollouts * self.size.prompts))
        return [template.render(problem.question) for problem in problems]

    def prompt_ids(self, rollouts: int) -> list[list[int]]:
        """The same, as token ids."""
        ids: list[list[int]] = self.parts["tokenizer"].encode_batch(self.prompts(rollouts))
        return ids

    def autocast(self) -> torch.autocast:
        """HuggingFace's training counterpart of our `precision=bf16`; does nothing in FP32."""
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16")


def _composed(*overrides: str) -> DictConfig:
    with composing():
        return compose_stage(overrides).config
