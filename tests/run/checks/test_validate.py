"""Types in annotations against values from YAML."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from r1_lightning.run.checks.validate import validate
from r1_lightning.types.errors import InvalidInput


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
            r"^task\.templat='r2' is not allowed: task takes source, template, instruction, tokenizer, name, judge; did you mean",
        ),
    ):
        with pytest.raises(InvalidInput, match=expected):
            validate(_config(task=node))


def test_a_nested_field_is_named_by_its_whole_path() -> None:
    node = {"parts": {"first": [{"_target_": "tests.run.fakes.FakeRollout", "group_size": 1}]}}
    with pytest.raises(InvalidInput, match=r"^reward\.parts\.first\[0\]\.group_size=1 is not allowed"):
        validate(_config(reward=node))
