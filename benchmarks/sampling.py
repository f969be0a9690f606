"""Sampling tokens/s: our Sampler against `transformers`' `generate`.

Equal on both sides: the weights; the prompts, `group_size` completions each; temperature 1 over the whole vocabulary (no top-k,
no top-p); a cache; no end of sequence, so that every completion has exactly `new_tokens` tokens (checked); no gradients.
Not equal: ours returns the log-prob of every token, because GRPO needs them, `generate` returns token ids alone; draws are keyed
here and come from torch's generator there, so the texts differ. Ours is tried with the model's own steps, compiled and not, and
with native ones (the default). How many rows a call of `generate` takes and how it runs experts are tried, the best is taken.
In BF16 ours has FP32 weights and casts them once per rollout; theirs has weights in BF16.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from transformers import GenerationConfig

from benchmarks.floor import sampling_part
from benchmarks.pairs import Contest, Measurement
from benchmarks.setting import EXPERTS, NEVER, World
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.native_sampler import NativeSampler
from r1_lightning.rollout.sampler import Sampler, left_padded
from r1_lightning.types.errors import require

WORK, NATIVE = "sampling", "fp32 native"


def contest(world: World) -> Contest:
    """New tokens/s of one rollout's worth of completions."""
    size = world.size
    return Contest(
        work=f"{WORK}, {size.completions} rows x {size.new_tokens} tokens",
        unit="tokens/s",
        opponent="transformers",
        ours={
            **{candidate.name: _ours(candidate) for candidate in world.ours()},
            NATIVE: _ours(world, NativeSampler),
        },
        theirs={
            f"{other.name}, {rows} rows per call, experts={experts}": _theirs(other, rows, experts)
            for other in world.theirs()
            for rows in size.generate_rows
            for experts in EXPERTS
        },
        floors={
            **{
                candidate.name: [sampling_part(world, candidate.precision, size.new_tokens)]
                for candidate in world.ours()
            },
            NATIVE: [sampling_part(world, "fp32", size.new_tokens)],
        },
        phases={NATIVE: _phases(world)},
        step_tokens=size.completions * size.new_tokens,
    )


def _phases(world: World) -> Callable[[], Mapping[str, float]]:
    """Seconds up to the first token of each completion, and of all others."""
    first = _ours(replace(world, size=replace(world.size, new_tokens=1)), NativeSampler)
    whole = _ours(world, NativeSampler)

    def measure() -> Mapping[str, float]:
        first()  # warms up
        first_s = world.size.completions / first()
        return {
            "prompts and first tokens": first_s,
            "decoding": world.size.completions * world.size.new_tokens / whole() - first_s,
        }

    return measure


def _ours(world: World, kind: type[Sampler] = Sampler) -> Measurement:
    size, parts, prompts = world.size, world.parts, world.prompt_ids(rollouts=1)
    rollout = parts["rollout"]
    settings = replace(rollout.sampler_settings(parts["tokenizer"], world.config.seed), eos_ids=[NEVER])
    sampler = kind(world.backbone(), settings)
    keys = rollout_keys(0, size.prompts, size.group_size)

    def measure() -> float:
        start_s = time.perf_counter()
        generation = sampler(prompts, size.group_size, keys)
        elapsed_s = time.perf_counter() - start_s
        _check_full_length(int(generation.completion_mask.sum()), size.completions * size.new_tokens)
        return size.completions * size.new_tokens / elapsed_s

    return measure


def _theirs(world: World, rows_per_call: int, experts: str) -> Measurement:
    size, pad_id = world.size, world.parts["tokenizer"].pad_id
    model = world.hf_model(experts).eval()
    if world.precision == "bf16":
        model.to(torch.bfloat16)
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=size.new_tokens,
        num_return_sequences=size.group_size,
        use_cache=True,
        pad_token_id=pad_id,
    )
    prompts = world.prompt_ids(rollouts=1)
    per_call = max(1, rows_per_call // size.group_size)
    calls = [left_padded(prompts[start : start + per_call], pad_id) for start in range(0, len(prompts), per_call)]

    def measure() -> float:
        start_s = time.perf_counter()
        new_tokens = 0
        for token_ids, is_token in calls:
            out = model.generate(input_ids=token_ids, attention_mask=is_token.long(), generation_config=settings)
            new_tokens += out.shape[0] * (out.shape[1] - token_ids.shape[1])
        elapsed_s = time.perf_counter() - start_s
        _check_full_length(new_tokens, size.completions * size.new_tokens)
        return new_tokens / elapsed_s

    return measure


def _check_full_length(new_tokens: int, wanted: int) -> None:
    require(new_tokens == wanted, "new tokens", new_tokens, f"both sides must make {wanted}")
