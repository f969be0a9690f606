"""Where an input of a stage comes from, as `stage.inputs` writes it."""

from __future__ import annotations

import pytest

from r1_lightning.run.config.stage_config import InputSpec
from r1_lightning.types.errors import InvalidInput


@pytest.mark.parametrize(
    ("node", "spec"),
    [
        ("pretrain", InputSpec("pretrain")),
        ({"stage": "scorer"}, InputSpec("scorer")),
        ({"stage": None, "experiment": "first"}, InputSpec(experiment="first")),
        ({"stage": "scorer", "overrides": ["a=1"]}, InputSpec("scorer", ("a=1",))),
        ({"folder": "runs/x"}, InputSpec(folder="runs/x")),
        ({"stage": "scorer", "overrides": [], "folder": "runs/x"}, InputSpec("scorer", (), "runs/x")),
    ],
)
def test_where_an_input_comes_from(node: object, spec: InputSpec) -> None:
    assert InputSpec.of("stage.inputs.score", node) == spec


@pytest.mark.parametrize(
    "node", [{}, {"overrides": []}, {"stage": 3}, {"stage": "x", "more": 1}, 5, None, ["pretrain"]]
)
def test_what_says_nothing_or_too_much_is_refused(node: object) -> None:
    with pytest.raises(InvalidInput, match=r"stage\.inputs\.score=.* is not allowed: it must be the name of a stage, "):
        InputSpec.of("stage.inputs.score", node)
    with pytest.raises(InvalidInput, match=r"stage\.inputs\.score\.overrides=\[1\] is not allowed: it must be a list"):
        InputSpec.of("stage.inputs.score", {"stage": "x", "overrides": [1]})
