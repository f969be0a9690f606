"""Moved classes: each former name leads to the class, a fingerprint keeps the first, and the table itself is sound."""

from __future__ import annotations

import importlib.util

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from r1_lightning.run.config.moved_names import MOVES, NAMES, MovedNames, use_present_names, with_names

# A: x.A -> y.A -> z.A; B: x.B -> y.B
NAMES_BY_HAND = MovedNames([("x.A", "y.A"), ("x.B", "y.B"), ("y.A", "z.A")])


@pytest.mark.parametrize(
    ("name", "first", "present"),
    [("x.A", "x.A", "z.A"), ("y.A", "x.A", "z.A"), ("z.A", "x.A", "z.A"), ("y.B", "x.B", "y.B"), ("x.C", "x.C", "x.C")],
)
def test_names_by_hand(name: str, first: str, present: str) -> None:
    assert (NAMES_BY_HAND.first(name), NAMES_BY_HAND.present(name)) == (first, present)


def test_a_configuration_gets_present_names_everywhere_and_nothing_else_changes() -> None:
    text = """
    a: {_target_: x.A, name: x.A, b: [{_target_: y.A}, x.A, [{c: {_target_: z.A, d: null}}]]}
    _target_: x.B
    other: {_target_: x.A.call, 3: {_target_: x.B}, e: '???', f: '${a.name}', g: {_target_: '${a.name}'}}
    h: null
    """
    config = OmegaConf.create(text)
    OmegaConf.set_struct(config, True)
    use_present_names(config, NAMES_BY_HAND)
    wanted = {
        "a": {
            "_target_": "z.A",
            "name": "x.A",
            "b": [{"_target_": "z.A"}, "x.A", [{"c": {"_target_": "z.A", "d": None}}]],
        },
        "_target_": "y.B",
        "other": {
            "_target_": "x.A.call",
            3: {"_target_": "y.B"},
            "e": "???",
            "f": "${a.name}",
            "g": {"_target_": "${a.name}"},
        },
        "h": None,
    }
    assert OmegaConf.to_container(config, resolve=False) == wanted


def test_plain_values_are_renamed_in_a_copy() -> None:
    node = {"_target_": "z.A", "b": [{"_target_": "y.B", "c": "z.A"}], "d": {"_target_": {"_target_": "y.A"}}}
    before = {"_target_": "z.A", "b": [{"_target_": "y.B", "c": "z.A"}], "d": {"_target_": {"_target_": "y.A"}}}
    assert with_names(node, NAMES_BY_HAND.first) == {
        "_target_": "x.A",
        "b": [{"_target_": "x.B", "c": "z.A"}],
        "d": {"_target_": {"_target_": "x.A"}},
    }
    assert node == before


def test_every_name_in_the_table_is_used_once() -> None:
    """No name is left twice or taken twice, so no two classes share a history; and no class returns to a name that it left."""
    left, taken = [before for before, _ in MOVES], [after for _, after in MOVES]
    assert len(set(left)) == len(left) and len(set(taken)) == len(taken)
    for number, after in enumerate(taken):
        assert after not in left[: number + 1]


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_a_former_name_is_free_and_leads_to_a_class_of_ours(before: str, after: str) -> None:
    present = NAMES.present(before)
    found = get_object(present)
    assert present == NAMES.present(after) and before.startswith("r1_lightning.")
    assert isinstance(found, type) and f"{found.__module__}.{found.__qualname__}" == present
    module, _, name = before.rpartition(".")
    is_there = importlib.util.find_spec(module) is not None
    assert not is_there or not hasattr(importlib.import_module(module), name)
