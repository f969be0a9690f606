"""Sampling tokens/s in BF16 beside the limit that reading weights and cache sets (`formulas.floor_tokens_per_s`).

The work is a rollout's: some prompts, a group of completions each, no end of sequence, so that every completion is as long as the
limit; log-probs come with every token. Reading the prompts is within the time. The floor counts weights and cache in BF16, the
type in which they meet, whatever type they are kept in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.formulas import decoding_bytes, floor_tokens_per_s
from benchmarks.gpu.report import Row, quantity
from benchmarks.pairs import deterministic
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import BF16
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig
from r1_lightning.types.errors import require

NO_END = -1  # an end-of-sequence id that no model samples
PAD = 0


@dataclass(frozen=True)
class SampleSize:
    """`prompts` of `prompt_tokens`, `group_size` completions of `new_tokens` each; rollouts that warm up and count."""

    prompts: int
    group_size: int
    prompt_tokens: int
    new_tokens: int
    warm_up: int
    rollouts: int

    @property
    def rows(self) -> int:
        return self.prompts * self.group_size


def title(config: ModelConfig, size: SampleSize) -> str:
    return f"sampling, width {config.d_model:,}, {size.rows} rows x {size.new_tokens} tokens, BF16"


def measure(config: ModelConfig, size: SampleSize, meter: Meter, limits: Limits) -> Row:
    """Draw `size.warm_up + size.rollouts` rollouts; the row of the table."""
    backbone = DeepSeekBackbone(config, PlainPrecision("bf16")).to(meter.device)
    sampling = SamplingConfig(max_new_tokens=size.new_tokens)
    sampler = Sampler(backbone, SamplerSettings(sampling, [NO_END], PAD, 0, size.rows))
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(1, config.vocab_size, (size.prompts, size.prompt_tokens), generator=generator).tolist()
    keys = rollout_keys(0, size.prompts, size.group_size)

    def draw() -> None:
        drawn = int(sampler(prompts, size.group_size, keys).completion_mask.sum())
        require(drawn == size.rows * size.new_tokens, "new tokens", drawn, "every completion has its full length")

    with deterministic():
        rollout_s = meter.seconds_per_call(draw, size.warm_up, size.rollouts)
    context = size.prompt_tokens + size.new_tokens / 2  # the mean over a completion's steps
    step_bytes = decoding_bytes(config, size.rows, context, BF16)
    floor = floor_tokens_per_s(size.rows, step_bytes, limits.bytes_per_s)
    tokens_per_s = size.rows * size.new_tokens / rollout_s
    return Row(
        part="sampling",
        work=title(config, size),
        unit="tokens/s",
        value=tokens_per_s,
        beside=f"{tokens_per_s / floor:.1%} of {quantity(floor, 'tokens/s')}, at which {step_bytes / 1e9:.3g} GB per step "
        f"are read with {limits.bytes_per_s / 1e12:.3g} TB/s ({limits.source})",
        peak_bytes=meter.peak_bytes(),
        details={"floor_tokens_per_s": floor, "bytes_per_step": step_bytes, "bytes_per_s": limits.bytes_per_s},
    )
