"""The command line of export_hf.py; what it writes is compared in test_notebook.py and test_importing.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1_lightning.run import export

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
