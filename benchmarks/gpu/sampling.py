"""Sampling tokens/s in BF16 beside the limit that reading weights and cache sets, and beside `transformers`' `generate`.

The work is a rollout's: some prompts, a group of completions each, no end of sequence, so that every completion is as long as the
limit; log-probs come with every token. Reading the prompts is within the time. The floor (`formulas.floor_tokens_per_s`) counts
weights and cache in BF16, the type in which they meet, whatever type they are kept in. One model serves all numbers of rows: at 512
arithmetic counts, at 64 both, and a single row is bound by reading and by starting kernels.

`generate` has the same weights in BF16, draws from the whole vocabulary at temperature 1, and returns token ids alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.formulas import decoding_bytes, floor_tokens_per_s
from benchmarks.gpu.models import fresh_backbone, same_hf_model
from benchmarks.gpu.report import Row, quantity
from benchmarks.pairs import deterministic
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import BF16
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

    @property
    def tokens(self) -> int:
        return self.rows * self.new_tokens


def title(config: ModelConfig, size: SampleSize) -> str:
    return f"sampling, width {config.d_model:,}, {size.rows} rows x {size.new_tokens} tokens, BF16"


def measure(
    config: ModelConfig, sizes: Sequence[SampleSize], meter: Meter, limits: Limits, no_hf: str
) -> Iterator[Row]:
    """A row for each of `sizes`, the same with `generate` beside them (unless `no_hf` says why not) after all of ours."""
    backbone = fresh_backbone(config, meter.device)
    ours: list[Row] = []
    for size in sizes:
        ours.append(_our_row(backbone, size, meter, limits))
        yield ours[-1]
    if no_hf:
        yield from (replace(row, beside=f"{row.beside}; generate not run: {no_hf}") for row in ours)
        return
    model = same_hf_model(backbone, meter.device)
    for row, size in zip(ours, sizes, strict=True):
        theirs = size.tokens / meter.seconds_per_call(_generate(model, size, meter), size.warm_up, size.rollouts)
        beside = f"{row.beside}; generate {quantity(theirs, 'tokens/s')}: {(row.value or 0.0) / theirs:.2f}x"
        yield replace(row, beside=beside, details={**row.details, "generate_tokens_per_s": theirs})


def _our_row(backbone: DeepSeekBackbone, size: SampleSize, meter: Meter, limits: Limits) -> Row:
    config = backbone.config
    with deterministic():
        rollout_s = meter.seconds_per_call(_draw(backbone, size), size.warm_up, size.rollouts)
    context = size.prompt_tokens + size.new_tokens / 2  # the mean over a completion's steps
    step_bytes = decoding_bytes(config, size.rows, context, BF16)
    floor = floor_tokens_per_s(size.rows, step_bytes, limits.bytes_per_s)
    tokens_per_s = size.tokens / rollout_s
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


def _prompts(config: ModelConfig, size: SampleSize) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, config.vocab_size, (size.prompts, size.prompt_tokens), generator=generator)


def _draw(backbone: DeepSeekBackbone, size: SampleSize) -> Callable[[], None]:
    sampling = SamplingConfig(max_new_tokens=size.new_tokens)
    sampler = Sampler(backbone, SamplerSettings(sampling, [NO_END], PAD, 0, size.rows))
    prompts = _prompts(backbone.config, size).tolist()
    keys = rollout_keys(0, size.prompts, size.group_size)

    def draw() -> None:
        _check(int(sampler(prompts, size.group_size, keys).completion_mask.sum()), size)

    return draw


def _generate(model: Any, size: SampleSize, meter: Meter) -> Callable[[], None]:
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=size.new_tokens,
        num_return_sequences=size.group_size,
        use_cache=True,
        pad_token_id=PAD,
    )
    prompts = _prompts(model.config, size).to(meter.device)
    mask = torch.ones_like(prompts)

    def draw() -> None:
        out = model.generate(input_ids=prompts, attention_mask=mask, generation_config=settings)
        _check(out.shape[0] * (out.shape[1] - size.prompt_tokens), size)

    return draw


def _check(drawn: int, size: SampleSize) -> None:
    require(drawn == size.tokens, "new tokens", drawn, "every completion has its full length")
