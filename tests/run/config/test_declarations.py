"""Classes say of themselves what they are; `run` reads it from the nodes that name them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from r1_lightning.run.config.compose import config_folder
from r1_lightning.run.config.declarations import batch_type_of, class_of, is_of_transformers, line_of, needs_of
from r1_lightning.types.text import Need

HERE = __name__
STAGES = sorted((config_folder() / "stage").glob("*.yaml"))
DATA = sorted((config_folder() / "data").glob("*.yaml"))


class Base:
    batch_type = int
    needs = ("documents",)


class Derived(Base):
    pass


class Silent:
    pass


def test_a_node_says_what_its_class_does() -> None:
    node = OmegaConf.create({"_target_": f"{HERE}.Derived"})
    assert class_of(node) is Derived and batch_type_of(node) is int and needs_of(node) == ("documents",)
    assert not is_of_transformers(node)
    assert is_of_transformers({"_target_": "r1_lightning.model.hf_model.HFModelConfig"})
    assert not is_of_transformers({"_target_": "r1_lightning.model.config.ModelConfig"})


@pytest.mark.parametrize("node", [None, {}, {"_target_": None}, {"_target_": f"{HERE}.Silent"}, "null"])
def test_what_says_nothing_needs_nothing(node: object) -> None:
    assert batch_type_of(node) is None and needs_of(node) == () and not is_of_transformers(node)


def test_a_class_has_the_line_of_its_nearest_base() -> None:
    assert line_of({object: "any", Base: "base"}, Derived) == "base"
    assert line_of({Base: "base", Derived: "own"}, Derived) == "own"
    assert line_of({Base: "base"}, Silent) is None and line_of({Base: "base"}, test_needs_are_known_words) is None


@pytest.mark.parametrize("path", [*STAGES, *DATA], ids=lambda path: f"{path.parent.name}={path.stem}")
def test_needs_are_known_words(path: Path) -> None:
    node = OmegaConf.load(path)
    needs = needs_of(node.get("stage", node))
    assert set(needs) <= set(get_args(Need)) and len(set(needs)) == len(needs)


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_a_stage_trains_on_the_batches_that_it_declares(path: Path) -> None:
    """What `batch_type` says is what `training_step` takes; a stage that trains nothing has neither."""
    stage = OmegaConf.load(path).stage
    step = getattr(get_object(stage._target_), "training_step", None)
    assert batch_type_of(stage) is (None if step is None else get_type_hints(step)["batch"])
