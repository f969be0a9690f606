"""The benchmark of loading: a rehearsal on a tiny folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.loading import main
from tests.support.hf_folders import dense_folder


def test_a_rehearsal_prints_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(dense_folder(tmp_path, "llama")), "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines] == [
        "ours",
        "file",
        "transformers",
        "transformers, read",
        "ours / file",
    ]
    assert all(re.search(r"\d+\.\d\d", line) for line in lines)
