"""The parts of the check in their order: what tells most comes first, because a run may end before the last.

A part yields rows, one after the other, as soon as each is known. A later row of the same work takes the place of the earlier one:
so our side is kept where the side beside it fails or hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchmarks.gpu import attention, fp8_bits, fp8_products, fp8_speed, grpo, pretraining, recipe, same_bits, sampling
from benchmarks.gpu.device import COPIED_BYTES, GEMM_SIZE, Limits, Meter
from benchmarks.gpu.grpo_size import GrpoSize, title
from benchmarks.gpu.needs import missing
from benchmarks.gpu.report import Row
from benchmarks.gpu.shapes import dense_shape_of, shape_of
from r1_lightning.model.config import ModelConfig

# What sides of single parts import, beyond what all parts need (`needs.NEEDS`).
# TRL's side is the benchmark's on the CPU, whose setting imports Hydra.
TRL_NEEDS = ("trl", "accelerate", "datasets", "transformers", "hydra", "omegaconf")
HF_NEEDS = ("transformers",)


@dataclass(frozen=True)
class Part:
    """Some work in words, and its measurement. `estimate_s` is a guess for an H200: with less time left it is not begun."""

    name: str
    work: str
    estimate_s: float
    measure: Callable[[], Iterator[Row]]


@dataclass(frozen=True)
class Plan:
    """How much work: shapes and sizes of every part; bytes and width of the device's own measurements."""

    trained: tuple[ModelConfig, ...]  # the first two are the most telling: dense, mixture
    train_size: pretraining.TrainSize
    sampled: ModelConfig
    sample_sizes: tuple[sampling.SampleSize, ...]
    attended: ModelConfig
    attention_sizes: tuple[attention.AttentionSize, ...]
    grpo_size: GrpoSize
    recipe_size: recipe.RecipeSize
    bits_size: GrpoSize
    fp8_backends: tuple[str, ...]
    fp8_shapes: tuple[fp8_bits.Shape, ...]
    fp8_products_size: fp8_products.ProductsSize
    fp8_widths: tuple[ModelConfig, ...]  # the narrow ones first
    fp8_size: pretraining.TrainSize
    copied_bytes: int
    gemm_size: int


def full_plan() -> Plan:
    """16,384 tokens per training step; rollouts of 512, 64 and 1 rows; 32,768 tokens through a layer of attention."""
    grpo_size = GrpoSize(32, 16, 64, 128, (64, 512), 4000, width=1024, n_layers=4, n_routed_experts=32, repeats=3)
    return Plan(
        trained=(dense_shape_of(2048), shape_of(2048), shape_of(4096), shape_of(1024)),
        train_size=pretraining.TrainSize(rows=8, row_tokens=2048, warm_up=3, steps=10),
        sampled=shape_of(4096),
        sample_sizes=tuple(
            sampling.SampleSize(prompts, group, prompt_tokens=128, new_tokens=128, warm_up=1, rollouts=1)
            for prompts, group in ((32, 16), (4, 16), (1, 1))
        ),
        attended=shape_of(2048, max_positions=32_768),
        attention_sizes=(
            attention.AttentionSize(rows=8, row_tokens=4096, warm_up=2, steps=5),
            attention.AttentionSize(rows=1, row_tokens=32_768, warm_up=1, steps=3),
        ),
        grpo_size=replace(grpo_size, vocab_size=32_768),
        recipe_size=recipe.RecipeSize(recipe.QWEN_0_5B, prompts=8, group_size=8, new_tokens=256, micro_batches=4),
        bits_size=GrpoSize(8, 8, 32, 96, (), 400, width=512, n_layers=3, n_routed_experts=16, repeats=1),
        fp8_backends=("te", "scaled_mm"),
        fp8_shapes=((256, 512), (144, 272), (16, 1040)),
        fp8_products_size=fp8_products.ProductsSize(1024, 768, (300, 0, 129, 64, 19)),
        fp8_widths=tuple(dense_shape_of(width, n_layers=2) for width in (1024, 2048, 4096, 8192)),
        fp8_size=pretraining.TrainSize(rows=8, row_tokens=2048, warm_up=2, steps=5),
        copied_bytes=COPIED_BYTES,
        gemm_size=GEMM_SIZE,
    )


def tiny_plan() -> Plan:
    """Seconds on two cores."""
    shape = shape_of(64, vocab_size=64, n_layers=2, n_routed_experts=4, kv_lora_rank=16, max_positions=64)
    return Plan(
        trained=(dense_shape_of(64, vocab_size=64, n_layers=2, kv_lora_rank=16, max_positions=64), shape),
        train_size=pretraining.TrainSize(rows=2, row_tokens=16, warm_up=1, steps=2),
        sampled=shape,
        sample_sizes=(sampling.SampleSize(2, 2, prompt_tokens=4, new_tokens=4, warm_up=1, rollouts=1),),
        attended=shape,
        attention_sizes=(attention.AttentionSize(rows=2, row_tokens=64, warm_up=1, steps=1),),
        grpo_size=GrpoSize(4, 4, 8, 96, (8,), 200, width=64, n_layers=2, n_routed_experts=4, repeats=1),
        recipe_size=recipe.RecipeSize(recipe.TINY, prompts=2, group_size=2, new_tokens=4, micro_batches=1),
        bits_size=GrpoSize(2, 4, 8, 96, (), 200, width=64, n_layers=2, n_routed_experts=4, repeats=1),
        fp8_backends=("emulate",),
        fp8_shapes=((16, 48),),
        fp8_products_size=fp8_products.ProductsSize(48, 32, (9, 0, 5)),
        fp8_widths=tuple(
            dense_shape_of(width, vocab_size=64, n_layers=1, kv_lora_rank=16, max_positions=64) for width in (64, 128)
        ),
        fp8_size=pretraining.TrainSize(rows=2, row_tokens=16, warm_up=1, steps=1),
        copied_bytes=2**16,
        gemm_size=64,
    )


def parts_of(plan: Plan, meter: Meter, limits: Callable[[], Limits], say: Callable[[str], None]) -> list[Part]:
    """The parts in their order, the most telling first. Nothing is measured yet, not even `limits`."""

    def train(config: ModelConfig, estimate_s: float) -> Part:
        work = pretraining.title(config, plan.train_size)
        return Part(
            "pretraining", work, estimate_s, lambda: pretraining.measure(config, plan.train_size, meter, limits())
        )

    def attend(size: attention.AttentionSize, estimate_s: float) -> Part:
        work = attention.title(plan.attended, size)
        return Part("attention", work, estimate_s, lambda: attention.measure(plan.attended, size, meter, limits()))

    no_hf, no_trl = missing(HF_NEEDS), missing(TRL_NEEDS)
    dense, mixture, *others = plan.trained
    return [
        train(dense, 20),
        train(mixture, 20),
        Part(
            "sampling",
            f"sampling, width {plan.sampled.d_model:,}",
            75,
            lambda: sampling.measure(plan.sampled, plan.sample_sizes, meter, limits(), no_hf),
        ),
        Part("same_bits", same_bits.WORK, 25, lambda: same_bits.measure(plan.bits_size, meter)),
        Part(
            "recipe",
            recipe.title(plan.recipe_size),
            60,
            lambda: recipe.measure(plan.recipe_size, meter, no_hf),
        ),
        *fp8_parts(plan, meter, limits),
        *(attend(size, 15) for size in plan.attention_sizes),
        Part("grpo", title(plan.grpo_size), 75, lambda: grpo.measure(plan.grpo_size, meter, no_trl, say)),
        *(train(config, 25) for config in others),
    ]


def fp8_parts(plan: Plan, meter: Meter, limits: Callable[[], Limits]) -> list[Part]:
    """Three for each backend of FP8: is it right, how exact is it, and what does it bring."""

    def bits(backend: str) -> Part:
        return Part("fp8_bits", fp8_bits.title(backend), 6, lambda: fp8_bits.measure(backend, plan.fp8_shapes, meter))

    def products(backend: str) -> Part:
        size = plan.fp8_products_size
        work = fp8_products.title(backend, "two layers", size)
        return Part("fp8_products", work, 6, lambda: fp8_products.measure(backend, size, meter))

    def speed(backend: str) -> Part:
        work = fp8_speed.title(backend, plan.fp8_size)
        return Part(
            "fp8_speed",
            work,
            20,
            lambda: fp8_speed.measure(backend, plan.fp8_widths, plan.fp8_size, meter, limits),
        )

    return [part(backend) for part in (bits, products, speed) for backend in plan.fp8_backends]
