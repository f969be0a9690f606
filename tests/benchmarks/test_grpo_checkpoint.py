"""The GRPO step of a checkpoint beside TRL's: a rehearsal with a tiny Qwen2."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl")

from benchmarks.grpo_checkpoint import main
from tests.support.hf_folders import dense_folder

Captured = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_both_sides_take_a_step_of_the_same_checkpoint(tmp_path: Path, capsys: Captured) -> None:
    """The sides themselves check weights, prompts, lengths and that weights moved."""
    folder = dense_folder(tmp_path / "qwen", "qwen2")
    assert main([str(folder), "--prompts", "2", "--group", "2", "--tokens", "4", "--pairs", "1"]) == 0
    out = capsys.readouterr().out
    assert "pair 1: ours" in out and "GRPO step of qwen2, 2 prompts x 2 completions x 4 tokens" in out


def test_a_folder_that_is_no_checkpoint_is_one_line(tmp_path: Path, capsys: Captured) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
