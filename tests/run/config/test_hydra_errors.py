"""Hydra's refusals in one line, with the nearest key or the options there are."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
import pytest

from r1_lightning.run.config.compose import composing
from r1_lightning.run.config.hydra_errors import explain
from tests.run.conftest import FAKE_CONFIGS


def explained(overrides: Sequence[str]) -> str | None:
    with composing(FAKE_CONFIGS), pytest.raises(Exception) as caught:
        hydra.compose("train", overrides=list(overrides))
    with composing(FAKE_CONFIGS):
        return explain(caught.value, overrides, "train")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stage=gropo", ["stage='gropo' is not allowed: it must be one of ", "grpo", "pretrain"]),
        ("model.d_modell=3", ["model.d_modell=3 is not allowed: there is no such key; did you mean model.d_model?"]),
        ("stage=[", ["the override 'stage=[' is not allowed: ", "it must be key=value"]),
        ("stage=null", ["one of stage=null is not allowed: a group takes the name of one of its options"]),
    ],
)
def test_what_is_wrong_and_what_is_allowed_in_one_line(override: str, words: list[str]) -> None:
    line = explained([override])
    assert line is not None and "\n" not in line
    assert all(word in line for word in words), line


def test_a_key_far_from_any_other_gets_no_guess() -> None:
    assert explained(["zzzzzz=1"]) == (
        "zzzzzz=1 is not allowed: there is no such key; --cfg job prints the keys there are"
    )


def test_an_error_of_another_kind_is_none_of_its_business() -> None:
    assert explain(RuntimeError("disk full"), [], "train") is None
