"""A GRPO step of a published model's shape (Qwen2.5-0.5B) with random weights, through the code of `stage=grpo model=hf`.

The stage, its data module, the sampler and Lightning's Trainer are the real ones; the task is the arithmetic one, whose tokenizer
is smaller than the model's vocabulary (a random policy draws from all of it), and every completion has its full length. So the
seconds are those of a step at this size, and what is learnt means nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.device import Meter
from benchmarks.gpu.grpo import endless, stage_of, task_parts, trainer
from benchmarks.gpu.grpo_size import SEED
from benchmarks.gpu.models import draw_weights
from benchmarks.gpu.report import Row, quantity
from benchmarks.grpo_work import STEPS, LightningClock, Witness, Work
from benchmarks.pairs import deterministic
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.types.tensors import Generation

INIT_STD = 0.02
TOKENIZER_DOCUMENTS = 400
# The fields of the published config.json that describe the model: 494 million weights, head and embedding tied.
QWEN_0_5B: Mapping[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
TINY = {
    **QWEN_0_5B,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1024,
}


@dataclass(frozen=True)
class RecipeSize:
    """The model's `config.json`; `prompts` x `group_size` completions of `new_tokens`, learnt in `micro_batches` parts."""

    fields: Mapping[str, Any]
    prompts: int
    group_size: int
    new_tokens: int
    micro_batches: int
    row_tokens: int = 1024

    @property
    def completions(self) -> int:
        return self.prompts * self.group_size


def title(size: RecipeSize) -> str:
    shape = f"{size.fields['num_hidden_layers']} layers of width {size.fields['hidden_size']:,}"
    counts = f"{size.prompts} prompts x {size.group_size} completions x {size.new_tokens} tokens"
    return f"GRPO step, model=hf, {size.fields['model_type']}, {shape}, {counts}, BF16"


class TimedSampler(Sampler):
    """The sampler, which notes the seconds of each rollout; everything is on the CPU when it returns."""

    seconds: list[float]

    def __call__(self, *arguments: Any, **named: Any) -> Generation:
        start_s = time.perf_counter()
        generation = super().__call__(*arguments, **named)
        self.seconds = [*getattr(self, "seconds", []), time.perf_counter() - start_s]
        return generation


def measure(size: RecipeSize, meter: Meter, no_hf: str) -> Iterator[Row]:
    """Seconds of the second of two steps, and how long its rollout took."""
    if no_hf:
        yield Row("recipe", title(size), not_run=no_hf)
        return
    backbone = random_model(size.fields, meter.device)
    weights = sum(parameter.numel() for parameter in backbone.parameters())
    witness, parts = Witness(), {**task_parts(TOKENIZER_DOCUMENTS), "rollout": rollout_of(size)}
    sampler = TimedSampler(backbone, endless(parts))
    module, data = stage_of(backbone, parts, sampler, witness, STEPS)
    callbacks = [LightningClock(witness)]
    with deterministic():
        meter.forget_peak()
        trainer(meter.device.type, STEPS, callbacks, size.micro_batches).fit(module, datamodule=data)
    step_s = witness.seconds_per_step(Work(title(size), (size.new_tokens,) * size.completions))
    rollout_s = sampler.seconds[-1]
    rate = size.completions * size.new_tokens / rollout_s
    yield Row(
        part="recipe",
        work=title(size),
        unit="s/step",
        value=step_s,
        beside=f"{weights / 1e6:,.0f} M random weights; {rollout_s:.3f} s of it sample ({quantity(rate, 'tokens/s')})",
        peak_bytes=meter.peak_bytes(),
        details={"rollout_s": rollout_s, "sampled_tokens_per_s": rate, "weights": float(weights)},
    )


def random_model(fields: Mapping[str, Any], device: torch.device) -> Any:
    """`HFBackbone` on `device` with weights drawn there."""
    from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
    from r1_lightning.model.precision import PlainPrecision

    backbone = HFBackbone(HFModelConfig(hf_config=fields), PlainPrecision("bf16"), SEED, is_drawn=False).to(device)
    draw_weights(backbone, INIT_STD)
    for name, parameter in backbone.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    return backbone


def rollout_of(size: RecipeSize) -> RolloutConfig:
    return RolloutConfig(
        prompts_per_rollout=size.prompts,
        group_size=size.group_size,
        micro_batches=size.micro_batches,
        max_new_tokens=size.new_tokens,
        row_tokens=size.row_tokens,
        max_rows=size.completions,
    )
