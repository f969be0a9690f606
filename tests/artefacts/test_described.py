"""A checkpoint known by its config.json alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.artefacts.described import describe_model
from r1_lightning.types.errors import InvalidInput


def test_a_folder_and_its_file_are_the_same_description(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "vocab_size": 8, "auto_map": null}')
    (tmp_path / "model.safetensors").write_text("not opened")
    folder, file = describe_model(tmp_path), describe_model(tmp_path / "config.json")
    assert folder == file and folder.source.config == {"model_type": "qwen2", "vocab_size": 8}
    assert not folder.has_tokenizer and folder.source.stored == {}
    (tmp_path / "tokenizer.json").write_text("{}")
    assert describe_model(tmp_path).has_tokenizer
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "vocab_size": 9}')
    assert describe_model(tmp_path).fingerprint != folder.fingerprint


@pytest.mark.parametrize("text", ["[]", "{"])
def test_what_is_no_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"config\.json"):
        describe_model(tmp_path)
    with pytest.raises(InvalidInput):
        describe_model(tmp_path / "absent.json")
