"""The command line of export_hf.py; what it writes is compared in test_notebook.py and test_importing.py."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import yaml

from r1_lightning.artefacts.store import Artefact, complete
from r1_lightning.artefacts.weights import save_weights
from r1_lightning.run.commands import export
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, tiny
from tests.support.hf_folders import VOCABULARY, write_tokenizer

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=x"], "artefact must be given"),
        (["artefact=absent", "out=x"], "there is no such folder"),
        (
            ["artefact=a", "out=x", "dtype=int8"],
            "dtype='int8' is not allowed: it must be one of float32, bfloat16, float16",
        ),
        (["artefact=a", "out=x", "max_file=0GB"], "max_file='0GB' is not allowed"),
        (
            ["artefact=a", "out=x", "colour=red"],
            "the argument='colour' is not allowed: it must be one of artefact, out",
        ),
        (["artefact"], "the argument='artefact' is not allowed: it must be key=value"),
    ],
)
def test_a_bad_export_is_one_line(
    arguments: list[str], message: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["export_hf.py", *arguments])
    assert export.main() == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_teaches(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["export_hf.py", "--help"])
    assert export.main() == 0
    assert "usage: python scripts/export_hf.py artefact=RUN out=DIR" in capsys.readouterr().out


def test_sizes_of_files() -> None:
    sizes = {text: export.ExportConfig("a", "b", max_file=text).max_file_bytes for text in ("5GB", "40KB", "7MB")}
    assert sizes == {"5GB": 5_000_000_000, "40KB": 40_000, "7MB": 7_000_000}


def test_a_reward_of_ones_own_is_not_in_the_way_and_not_imported(tmp_path: Path) -> None:
    """Only the model's targets are read; those must be ours."""
    folder = tmp_path / "run"
    write_tokenizer(folder / "tokenizer")
    config = tiny(vocab_size=VOCABULARY)
    save_weights(backbone(config), folder / "weights.safetensors")
    node = {"_target_": "r1_lightning.model.config.ModelConfig", **dataclasses.asdict(config)}
    node = {name: value for name, value in node.items() if name != "vocab_size"}
    settings = {"model": node, "task": {"template": "r1_zero"}, "reward": {"_target_": "no_such_module.Mine"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    complete(Artefact(folder, "grpo", "0" * 64), "c", {}, {}, {})
    out = export.export(export.ExportConfig(str(folder), str(tmp_path / "out")))
    assert json.loads((out / "config.json").read_text())["vocab_size"] == VOCABULARY
    settings["model"] = {"_target_": "no_such_module.Model"}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(InvalidInput, match="it is no class of r1_lightning"):
        export.export(export.ExportConfig(str(folder), str(tmp_path / "again")))
