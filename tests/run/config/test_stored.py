"""An artefact's configuration is a file from anywhere: what it names is checked before it is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.checks.stored_config import read_config
from r1_lightning.run.config.stored import read_model, read_settings
from r1_lightning.types.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "it cannot be read"),
        ("a: [", "it cannot be read"),
        ("a: ${nothing.here}", "it cannot be read"),
        ("[1, 2]", "it is no configuration of a stage"),
        ("a: '\\${oc.env:HOME}'", "is not allowed"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    for read in (read_settings, read_model, lambda p: read_config(p, trust_targets=True)):
        with pytest.raises(InvalidInput, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_settings_are_plain_values_with_references_resolved(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: {b: [1, x]}\nc: ${a.b}\n_target_: os.system\n")
    assert read_settings(tmp_path / "config.yaml") == {"a": {"b": [1, "x"]}, "c": [1, "x"], "_target_": "os.system"}


def test_a_model_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {x: 1}")
    with pytest.raises(InvalidInput, match="it describes no model"):
        read_model(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("model: {_target_: os.system}")
    with pytest.raises(InvalidInput, match=r"_target_='os\.system' is not allowed"):
        read_model(tmp_path / "config.yaml")
