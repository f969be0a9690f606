"""`config.json` without notes of the library and names of code, and what is no JSON object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.artefacts.hf_json import described_model, json_object
from r1_lightning.types.errors import InvalidInput


def written(folder: Path, **fields: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    return path


def test_the_library_s_notes_are_dropped_at_every_depth(tmp_path: Path) -> None:
    notes = {"_name_or_path": "x/y", "_attn_implementation": "eager", "_commit_hash": None, "_model_name_or_path": "z"}
    nested = {"rope_scaling": {"_target_": "os.system", "factor": 2.0}, "list": [{"_convert_": "all", "a": 1}]}
    found = described_model(written(tmp_path, vocab_size=3, **notes, **nested))
    assert found == {"vocab_size": 3, "rope_scaling": {"factor": 2.0}, "list": [{"a": 1}]}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"custom_generate": "evil/repo", "auto_map": {"a": "b"}}, "auto_map, custom_generate"),
    ],
)
def test_names_of_code_are_dropped_with_a_line(tmp_path: Path, fields: dict[str, object], named: str) -> None:
    with pytest.warns(UserWarning, match=rf"config\.json names code of its own \({named}\), which is not run"):
        assert described_model(written(tmp_path, vocab_size=3, **fields)) == {"vocab_size": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json cannot be read: it is no JSON"),
        ("[" * 10**5, r"config\.json cannot be read: it is no JSON"),
        ("[]", r"config\.json='list' is not allowed: it must be a JSON object"),
        (None, r"it holds no config\.json"),
    ],
)
def test_what_is_no_object_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInput, match=message) as refused:
        json_object(tmp_path / "config.json")
    assert "\n" not in str(refused.value)
