"""Each axis changes what it names, in the configuration of a run, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.growth_axes import AXES, BASE, TINY, GrowingWorld, LongQuestions, world_at
from r1_lightning.types.text import Problem


@pytest.mark.parametrize(
    ("axis", "value", "expected"),
    [
        ("layers", 3, {"n_layers": 3, "d_model": 128}),
        ("experts", 16, {"n_routed_experts": 16, "n_layers": 4}),
        (
            "width",
            64,
            {"d_model": 64, "n_heads": 2, "kv_lora_rank": 24, "q_lora_rank": 32, "d_ff_dense": 128, "d_ff_expert": 32},
        ),
        ("prompt", 700, {"max_positions": 1448, "n_layers": 4}),
    ],
)
def test_an_axis_of_the_model_is_in_the_configuration(axis: str, value: int, expected: dict[str, int]) -> None:
    config = world_at(axis, value, TINY).config.model
    assert {name: config[name] for name in expected} == expected


def test_width_128_is_the_model_of_the_other_benchmarks() -> None:
    assert world_at("width", 128, TINY).config.model == TINY.config.model


@pytest.mark.parametrize(("axis", "value", "field"), [("group", 6, "group_size"), ("completion", 24, "new_tokens")])
def test_an_axis_of_the_rollout_is_in_its_size(axis: str, value: int, field: str) -> None:
    world = world_at(axis, value, TINY)
    changed = {name for name, kept in vars(world.size).items() if kept != getattr(TINY.size, name)}
    assert getattr(world.size, field) == value and field in changed
    assert changed <= {field, "generate_rows", "trl_batches", "row_tokens", "train_rows", "train_row_tokens"}
    assert all(world.size.completions % batch == 0 for batch in world.size.trl_batches)


def test_a_group_fits_into_the_longest_rows() -> None:
    world = world_at("prompt", 512, BASE)
    assert max(world.size.row_tokens) >= 512 + 16 * 66 and min(world.size.row_tokens) >= 512 + 64


def test_questions_are_filled_up_to_a_length() -> None:
    class Source:
        def train_problem(self, seed: int, index: int) -> Problem:
            return Problem("1+2=", "3", "p")

    long = LongQuestions(Source(), list, "[{}]".format, 30)  # one token per character
    problem = long.train_problem(0, 0)
    assert problem.question == "7+5 " * 6 + "1+2=" and problem.answer == "3"
    assert replace(long, tokens=2).train_problem(0, 0).question == "1+2="


def test_who_competes_depends_on_the_compiler() -> None:
    def names(worlds: Any) -> list[str]:
        return [world.name for world in worlds]

    assert names(BASE.ours()) == names(BASE.theirs()) == ["fp32"]
    compiled = replace(BASE, compile=True)
    assert names(compiled.ours()) == ["fp32", "fp32 compiled", "bf16 compiled"] and names(compiled.theirs()) == [
        "fp32",
        "bf16",
    ]
    wide = world_at("layers", 2, BASE)
    assert all(
        isinstance(world, GrowingWorld) and world.settings == wide.settings for world in [*wide.ours(), *wide.theirs()]
    )


def test_every_axis_is_measured_from_its_own_default_on() -> None:
    assert all(tuple(sorted(set(axis.values))) == axis.values and axis.contests for axis in AXES.values())
    assert set(AXES) == {"width", "layers", "vocabulary", "experts", "completion", "prompt", "group"}


@pytest.mark.slow
def test_a_head_can_be_wider_than_the_tokenizer() -> None:
    world = world_at("vocabulary", 900, TINY)
    assert world.parts["backbone"].head.weight.shape[0] == 900 > world.parts["tokenizer"].vocab_size
    assert world.hf_model("eager").lm_head.weight.shape[0] == 900
    long = world_at("prompt", 80, TINY)
    assert all(60 <= len(ids) <= 90 for ids in long.prompt_ids(1))
