"""A stage is run by the line of its class in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
from omegaconf import OmegaConf

from r1_lightning.evaluation.comparison import Comparison
from r1_lightning.rollout.rejection_sampling import RejectionSampling
from r1_lightning.run.config.compose import config_folder
from r1_lightning.run.config.declarations import class_of, line_of
from r1_lightning.run.stages import kinds
from r1_lightning.types.errors import InvalidInput

HERE = __name__


class Ppo(L.LightningModule):
    """A stage that trains and is in no table."""


class MoreSampling(RejectionSampling):
    """A kind of sampling of somebody's own."""


class NoStage:
    pass


@pytest.mark.parametrize(
    ("target", "expected"),
    [(f"{HERE}.Ppo", L.LightningModule), (f"{HERE}.MoreSampling", RejectionSampling), (f"{HERE}.NoStage", None)],
)
def test_a_new_stage_runs_as_its_base_class_does(
    monkeypatch: pytest.MonkeyPatch, target: str, expected: type | None
) -> None:
    def runner(kind: type) -> Any:
        return lambda config, name, folder, inputs: {f"{kind.__name__} {name} {folder} {inputs}": 1.0}

    monkeypatch.setattr(kinds, "RUNS", {kind: runner(kind) for kind in kinds.RUNS})
    config = OmegaConf.create({"stage": {"_target_": target}})
    if expected is None:
        with pytest.raises(
            InvalidInput, match=r"stage\._target_='.*NoStage' is not allowed: it must be a LightningModule,"
        ):
            kinds.run_stage(config, "ppo", Path("runs"), {})
    else:
        assert kinds.run_stage(config, "ppo", Path("runs"), {}) == {f"{expected.__name__} ppo runs {{}}": 1.0}


def test_every_shipped_stage_is_run_by_something() -> None:
    stages = sorted((config_folder() / "stage").glob("*.yaml"))
    lines = {path.stem: line_of(kinds.RUNS, class_of(OmegaConf.load(path).stage)) for path in stages}
    assert None not in lines.values()
    assert {name for name, line in lines.items() if line is kinds.RUNS[L.LightningModule]} == (
        lines.keys() - {"sample", "compare"}
    )
    assert lines["compare"] is kinds.RUNS[Comparison] and lines["sample"] is kinds.RUNS[RejectionSampling]
