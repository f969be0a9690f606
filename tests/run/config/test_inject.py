"""Each target gets the objects whose names its signature has; a refusal comes out as itself."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from r1_lightning.run.config.inject import inject
from r1_lightning.types.errors import InvalidInput, require_int


class Wants:
    """A target that asks for two parts and takes a leaf."""

    def __init__(self, backbone: Any, seed: int, size: int = 1) -> None:
        require_int("size", size, 1)
        self.backbone, self.seed, self.size = backbone, seed, size


HERE = "tests.run.config.test_inject"


def broken() -> None:
    raise ZeroDivisionError("a defect")


def test_a_target_gets_the_parts_it_names_and_no_others() -> None:
    policy = object()
    node = OmegaConf.create({"_target_": f"{HERE}.Wants", "size": 3})
    made = inject(node, {"backbone": policy, "seed": 7, "tokenizer": "not asked for"})
    assert made.backbone is policy and made.seed == 7 and made.size == 3


def test_what_yaml_sets_wins_and_null_leaves_it_to_the_parts() -> None:
    parts = {"backbone": None, "seed": 7}
    assert inject(OmegaConf.create({"_target_": f"{HERE}.Wants", "seed": 9}), parts).seed == 9
    assert inject(OmegaConf.create({"_target_": f"{HERE}.Wants", "seed": None}), parts).seed == 7


def test_keys_of_the_graph_are_not_arguments() -> None:
    node = {"_target_": f"{HERE}.Wants", "inputs": {"base": "pretrain"}, "parent_overrides": [], "evaluation": None}
    assert inject(OmegaConf.create(node), {"backbone": None, "seed": 1}).size == 1


def test_a_refusal_of_ours_comes_out_as_itself_and_a_defect_does_not() -> None:
    with pytest.raises(InvalidInput, match="size=0 is not allowed"):
        inject(OmegaConf.create({"_target_": f"{HERE}.Wants", "size": 0}), {"backbone": None, "seed": 1})
    with pytest.raises(Exception, match="a defect") as raised:
        inject(OmegaConf.create({"_target_": f"{HERE}.broken"}), {})
    assert not isinstance(raised.value, InvalidInput)
