"""Other models of a stage, from descriptions alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest

from r1_lightning.artefacts.described import describe_model
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.cost.beside import complete, data_folder, described, is_named, models_beside
from r1_lightning.run.graph.node import Node
from tests.support.commands import SMALL_MODEL
from tests.support.hf_folders import dense_folder


@pytest.fixture(autouse=True)
def with_configs() -> Iterator[None]:
    with composing():
        yield


def node(tmp_path: Path, *overrides: str, inputs: Any = None) -> Node:
    return Node(compose_stage([*overrides, f"paths.root={tmp_path}"]), "0", inputs or {})


def parts(**more: Any) -> dict[str, Any]:
    backbone = Namespace(precision=PlainPrecision())
    return {"backbone": backbone, "tokenizer": Namespace(vocab_size=300), **more}


def test_a_teacher_and_a_reward_model_that_are_still_to_be_made(tmp_path: Path) -> None:
    """Both have the stage's tokenizer; the reward model has a head of 16 numbers more. Other inputs are no models beside it."""
    small = node(tmp_path, *SMALL_MODEL, "stage=pretrain")
    reward = Namespace(part_of_model={"helpful": "summary"})
    models = models_beside({"base": small, "teacher": small, "helpful": small}, parts(reward=reward))
    assert models.keys() == {"teacher", "helpful"}
    assert models["teacher"].config.vocab_size == 300 and isinstance(models["helpful"], RewardModel)
    sizes = {role: sum(p.numel() for p in model.parameters()) for role, model in models.items()}
    assert sizes["helpful"] - sizes["teacher"] == 16
    assert {p.device.type for model in models.values() for p in model.parameters()} == {"meta"}


def test_a_stage_of_a_model_of_transformers_is_described_by_what_it_starts_from(tmp_path: Path) -> None:
    base = describe_model(dense_folder(tmp_path / "source", "qwen2"))
    first = node(tmp_path, "model=hf", "stage=sft", inputs={"base": base})
    second = node(tmp_path, "model=hf", "stage=sft", inputs={"base": first})
    assert described(second).hf_config["hidden_size"] == 32
    assert models_beside({"teacher": second}, parts())["teacher"].head.weight.shape == (432, 32)


def test_data_that_are_there_and_that_are_not(tmp_path: Path) -> None:
    missing = node(tmp_path, "stage=pretrain")
    there = describe_model(dense_folder(tmp_path / "source", "qwen2"))
    assert data_folder({"data": missing}) == {} == data_folder({}) and complete(missing) is None
    assert data_folder({"data": there}) == {"data_folder": tmp_path / "source"}
    assert is_named(None) and is_named({"file": "x"}) and not is_named({"file": None, "hub": None})
