"""Types in annotations against values from YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf

from r1_lightning.run.validate import accepts, describe, validate
from r1_lightning.types.errors import InvalidInput
from tests.run.fakes import FakeModel

ACCEPTED = [
    (1, int),
    (1, float),
    (1.5, float),
    ("a", str),
    (True, bool),
    (None, int | None),
    (3, int | None),
    ("x", Path),
    ("a", Literal["a", "b"]),
    ([1, 2], list[int]),
    ([1, 2.5], tuple[float, ...]),
    ([0.9, 0.9], tuple[float, float]),
    ([], Sequence[int]),
    ({"a": 1}, Mapping[str, int]),
    ({"a": 1}, dict),
    ([1], list),
    ("anything", Any),
    (3, object),
    ({"_target_": "x.Y"}, FakeModel),
    (4, Annotated[int, "width"]),
    (0.1, "a forward reference"),
    (1, float | FakeModel),
]
REFUSED = [
    (True, int),
    (True, float),
    (1.0, int),
    ("1", int),
    ("1", float),
    (1, str),
    (1, bool),
    ("true", bool),
    (None, int),
    ("a", int | None),
    (3, Path),
    ("c", Literal["a", "b"]),
    (["a"], list[int]),
    ("ab", Sequence[str]),
    (3, list[int]),
    ([1], Mapping[str, int]),
    (1, list),
    ("abc", FakeModel),
    (2.5, Annotated[int, "width"]),
    ("abc", float | FakeModel),
    ("abc", Callable),
    (3, dict),
]


@pytest.mark.parametrize(("value", "hint"), ACCEPTED, ids=str)
def test_accepts(value: object, hint: object) -> None:
    assert accepts(value, hint)


@pytest.mark.parametrize(("value", "hint"), REFUSED, ids=str)
def test_refuses(value: object, hint: object) -> None:
    assert not accepts(value, hint)


def test_describe_speaks_plainly() -> None:
    assert describe(int | None) == "a whole number or null"
    assert describe(Literal["a", 2]) == "one of a, 2"
    assert describe(list[float]) == "a list of a number"
    assert describe(float | int | float) == "a number or a whole number"


def _config(**nodes: object) -> object:
    return OmegaConf.create(
        {"seed": 0, "fresh": False, "init_from": None, "paths": {"root": "r"}, "stage": {}, **nodes}
    )


def test_a_missing_mandatory_value_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"optim\.lr"):
        validate(_config(optim={"lr": "???"}))
    with pytest.raises(InvalidInput, match=r"model\.d_model is missing: FakeModel needs it"):
        validate(_config(model={"_target_": "tests.run.fakes.FakeModel"}))


def test_keys_that_nobody_reads_and_values_of_run_are_refused() -> None:
    for node, expected in (
        (
            {"tokenizer": {"vocab_sise": 300}},
            r"^task\.tokenizer\.vocab_sise=300 is not allowed: .*did you mean vocab_size",
        ),
        (
            {"tokenizer": {"vocab_size": "many"}},
            r"^task\.tokenizer\.vocab_size='many' is not allowed: it must be a whole",
        ),
        ({"tokenizer": {"training_documents": 0}}, r"^task\.tokenizer\.training_documents=0 is not allowed"),
        ({"template": "r2"}, r"^task\.template='r2' is not allowed: it must be one of r1_zero"),
        (
            {"templat": "r2"},
            r"^task\.templat='r2' is not allowed: task takes source, template, tokenizer; did you mean",
        ),
    ):
        with pytest.raises(InvalidInput, match=expected):
            validate(_config(task=node))


def test_a_nested_field_is_named_by_its_whole_path() -> None:
    node = {"parts": {"first": [{"_target_": "tests.run.fakes.FakeRollout", "group_size": 1}]}}
    with pytest.raises(InvalidInput, match=r"^reward\.parts\.first\[0\]\.group_size=1 is not allowed"):
        validate(_config(reward=node))
