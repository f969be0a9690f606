"""The same code on real text, by configuration alone: GSM8K through both stages, for a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import train


@pytest.mark.long
def test_gsm8k_runs_through_pretraining_and_grpo(tmp_path: Path, shared_dir: Path) -> None:
    """Nothing is claimed of the result but that it is there: 2 and 2 steps teach nothing."""
    few = 'stage.parent_overrides=["stage.max_steps=2","data.row_tokens=384"]'
    done = train(["experiment=gsm8k_smoke", few, f"paths.root={tmp_path}", f"paths.data={shared_dir / 'data'}"])
    assert done.code == 0, done
    (grpo,) = tmp_path.glob("grpo-tiny-gsm8k-*")
    assert (grpo / "artefact.json").is_file()
    table = (grpo / "table.txt").read_text(encoding="utf-8")
    assert "pass_at_1" in table and "8 held-out problems of GSM8KTask" in table
