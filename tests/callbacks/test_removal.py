"""Callbacks show and check. Whichever of them are there, and in whatever order, the trained weights are the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import pytest
import yaml
from hydra.utils import instantiate

from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from tests.support.miniature import Miniature, fingerprint, trainer

SHIPPED: dict[str, dict] = yaml.safe_load((Path(__file__).parents[2] / "configs/callbacks/default.yaml").read_text())


def trained(stage: str, folder: Path, callbacks: Sequence[L.Callback]) -> int:
    miniature = Miniature(max_steps=4)
    shows_progress = any(isinstance(callback, L.pytorch.callbacks.ProgressBar) for callback in callbacks)
    fit = trainer(4, folder, callbacks, enable_progress_bar=shows_progress)
    if stage == "grpo":
        fit.fit(miniature.grpo(reference_refresh_steps=2), datamodule=miniature.rollouts())
    else:
        fit.fit(miniature.pretrain(bias_update_speed=0.05), datamodule=miniature.text())
    return fingerprint(miniature.model)


def made(names: Sequence[str]) -> list[L.Callback]:
    return [instantiate(SHIPPED[name]) for name in names]


@pytest.mark.parametrize("stage", ["pretrain", "grpo"])
def test_all_of_them_or_none(tmp_path: Path, stage: str) -> None:
    bare = trained(stage, tmp_path, [])
    everything = [*made(list(SHIPPED)), ResumeCheckpoint(tmp_path, 1)]
    assert len(everything) > 3
    assert trained(stage, tmp_path, everything) == bare
    assert trained(stage, tmp_path, everything[::-1]) == bare
    assert bare != fingerprint(Miniature().model), "nothing was trained, so that nothing could differ"


@pytest.mark.parametrize("removed", SHIPPED)
def test_removing_one_changes_nothing(tmp_path: Path, removed: str) -> None:
    rest = made([name for name in SHIPPED if name != removed])
    assert trained("grpo", tmp_path, rest) == trained("grpo", tmp_path, [])
