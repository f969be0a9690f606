"""The axes of `growth.py`: what makes the work of a contest larger, and the `World` at a value of an axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from benchmarks.setting import FULL, QUICK, World
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.continued_rows import OWN_PROMPT_TOKENS
from r1_lightning.types.text import Problem

ALL = ("pretraining", "sampling", "grpo")
RL = ("sampling", "grpo")
FILLING = "7+5 "  # in front of a question, again and again, until its prompt is long enough


@dataclass(frozen=True)
class Axis:
    """Values to measure at, the contests that they change, and the world at a value."""

    values: tuple[int, ...]
    contests: tuple[str, ...]
    at: Callable[[GrowingWorld, int], GrowingWorld]


@dataclass(frozen=True)
class LongQuestions:
    """A `ProblemSource` of the questions of `source` behind so much filling that their prompts have about `tokens` tokens."""

    source: Any
    encode: Callable[[str], list[int]]
    render: Callable[[str], str]
    tokens: int

    def train_problem(self, seed: int, index: int) -> Problem:
        problem = self.source.train_problem(seed, index)
        per_piece = max(1, len(self.encode(10 * FILLING)) // 10)
        pieces = max(0, self.tokens - len(self.encode(self.render(problem.question)))) // per_piece
        return replace(problem, question=pieces * FILLING + problem.question)

    def documents(self, seed: int, start: int, count: int) -> Any:
        return self.source.documents(seed, start, count)


@dataclass(frozen=True)
class GrowingWorld(World):
    """A world with further `overrides`, prompts of about `prompt_tokens`, and a head of `vocabulary` tokens (0: as they are)."""

    overrides: tuple[str, ...] = ()
    prompt_tokens: int = 0
    vocabulary: int = 0

    def ours(self) -> list[World]:
        """FP32 as it comes, or, where ours may compile, what `World` tries."""
        return [replace(self, compile=False), *self._compiled()]

    def _compiled(self) -> list[World]:
        return [replace(self, precision=kind) for kind in ("fp32", "bf16")] if self.compile else []

    def ours_of_rl(self) -> list[World]:
        """The same, and where ours may compile a BF16 update after a rollout in FP32."""
        return [*self.ours(), *([replace(self, precision="bf16", decode="fp32")] if self.compile else [])]

    def theirs(self) -> list[World]:
        kinds = ("fp32", "bf16") if self.compile else ("fp32",)
        return [replace(self, precision=kind, compile=False) for kind in kinds]

    @property
    def settings(self) -> tuple[str, ...]:
        return self.overrides

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        found = dict(super().parts)
        if self.prompt_tokens:
            found["source"] = LongQuestions(
                found["source"], found["tokenizer"].encode, found["template"].render, self.prompt_tokens
            )
        if self.vocabulary:
            backbone = found["backbone"]
            config = replace(backbone.config, vocab_size=max(self.vocabulary, backbone.config.vocab_size))
            found["backbone"] = DeepSeekBackbone(config, backbone.precision, seed=self.config.seed)
        return found


def _width(world: GrowingWorld, value: int) -> GrowingWorld:
    """Everything that `model=tiny` derives from its width, heads of 32 as they are."""
    shape = {
        "d_model": value,
        "n_heads": max(1, value // 32),
        "q_lora_rank": value // 2,
        "kv_lora_rank": value * 3 // 8,
        "d_ff_dense": 2 * value,
        "d_ff_expert": value // 2,
    }
    return _with(world, *(f"model.{name}={number}" for name, number in shape.items()))


def _with(world: GrowingWorld, *overrides: str) -> GrowingWorld:
    return replace(world, overrides=(*world.overrides, *overrides))


def _sized(world: GrowingWorld, **changes: Any) -> GrowingWorld:
    return replace(world, size=replace(world.size, **changes))


def _completion(world: GrowingWorld, value: int) -> GrowingWorld:
    """In pre-training, the length of a row at as many tokens per step."""
    size = world.size
    rows = max(1, size.train_rows * size.train_row_tokens // value)
    grown = _sized(world, new_tokens=value, train_rows=rows, train_row_tokens=value)
    return _long(grown, value + 64)


def _prompt(world: GrowingWorld, value: int) -> GrowingWorld:
    return _long(replace(world, prompt_tokens=value), value + world.size.new_tokens + 16)


def _long(world: GrowingWorld, longest: int) -> GrowingWorld:
    """Rows in which a prompt and its completion fit, and in which a group does; positions for them."""
    size = world.size
    rows = tuple(sorted({max(96, longest), longest + size.group_size * (size.new_tokens + OWN_PROMPT_TOKENS)}))
    positions = max(512, 2 * longest)
    return _with(_sized(world, row_tokens=rows), f"model.max_positions={positions}", f"rollout.row_tokens={longest}")


def _group(world: GrowingWorld, value: int) -> GrowingWorld:
    """As many prompts, so that the completions grow with the group."""
    return _batched(_sized(world, group_size=value))


def _batched(world: GrowingWorld) -> GrowingWorld:
    """The peer's batches: all completions at once, or a quarter."""
    completions = world.size.completions
    batches = tuple(sorted({max(1, completions // 4), completions}))
    return _sized(world, generate_rows=(completions,), trl_batches=batches)


AXES: dict[str, Axis] = {
    "width": Axis((64, 128, 256, 512), ALL, _width),
    "layers": Axis((2, 4, 8, 16), ALL, lambda world, value: _with(world, f"model.n_layers={value}")),
    "vocabulary": Axis((512, 4096, 32768, 129280), ALL, lambda world, value: replace(world, vocabulary=value)),
    "experts": Axis((8, 32, 128, 256), ALL, lambda world, value: _with(world, f"model.n_routed_experts={value}")),
    "completion": Axis((32, 64, 128, 256), ALL, _completion),
    "prompt": Axis((32, 64, 128, 256, 512), RL, _prompt),
    "group": Axis((4, 8, 16, 32), RL, _group),
}

# An eighth of the rollout of `benchmarks/run.py`: a curve has many points.
BASE = GrowingWorld(
    replace(FULL, prompts=4, train_steps=4, row_tokens=(96, 1024), micro_batches=(4,), tokenizer_documents=1000)
)
TINY = GrowingWorld(replace(QUICK, row_tokens=(64, 128)))


def world_at(axis: str, value: int, base: GrowingWorld) -> GrowingWorld:
    """The world of `base` with `axis` at `value`."""
    return AXES[axis].at(_batched(base), value)
