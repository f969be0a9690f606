"""The probe: real parts, doubling work, an end when its time is up, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from r1_lightning.run.cost import probe
from r1_lightning.stages.grpo import GRPOModule
from tests.support.commands import SMALL_MODEL

ROLLOUT = ("rollout.prompts_per_rollout=4", "rollout.group_size=4", "rollout.max_new_tokens=12")


@pytest.fixture(autouse=True)
def with_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with composing():
        yield
    torch.use_deterministic_algorithms(False)


def config_of(*overrides: str) -> DictConfig:
    return resolved(compose_stage([*SMALL_MODEL, *overrides]).config)


def rows_trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the batches that `GRPOModule` is given from now on; every one must have something to learn from."""
    shapes: list[tuple[int, ...]] = []
    step = GRPOModule.training_step

    def noted(self: GRPOModule, batch: probe.GRPOBatch, index: int) -> torch.Tensor:
        assert batch.advantages.any()
        shapes.append(tuple(batch.completion_mask.shape))
        return step(self, batch, index)

    monkeypatch.setattr(GRPOModule, "training_step", noted)
    return shapes


def test_grpo_is_timed_up_to_its_real_micro_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """16 completions in 2 minibatches of 2 parts: 4 completions, each in a row of its own."""
    shapes = rows_trained(monkeypatch)
    split = ("rollout.minibatches_per_rollout=2", "rollout.micro_batches=2", "rollout.row_tokens=50")
    speed = probe.measure(config_of("stage=grpo", *ROLLOUT, *split, "stage.on_zero_variance=stop"), None)
    assert len(shapes) == len(probe.PARTS) and shapes[-1] == shapes[-2]
    assert shapes[0][0] <= shapes[-1][0] <= 4 and shapes[-1][1] <= 50
    assert min(speed.training_s, speed.optimizer_s, speed.data_s, speed.sampling_s) > 0
    assert speed.new_tokens is not None and 1 <= speed.new_tokens <= 12
    assert speed.probe_s > speed.sampling_s * 16
    assert list(tmp_path.iterdir()) == []


def test_a_slow_machine_stops_early_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time at all: 8 tokens of the 40 wanted are sampled, and after the first, three batches are timed."""
    monkeypatch.setattr(probe, "BUDGET_S", 0.0)
    shapes = rows_trained(monkeypatch)
    speed = probe.measure(config_of("stage=grpo", *ROLLOUT, "rollout.max_new_tokens=40"), None)
    assert len(shapes) == 1 + probe.READINGS and shapes[-1][0] < 16
    assert speed.new_tokens is None and speed.training_s > 0


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_completions_cut_off_fill_rows_as_at_their_limit(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sampling stops at 8 of 40 tokens, training sees 40: rows are then as full as a run's."""
    monkeypatch.setattr(probe, "BUDGET_S", 0.0)
    counted: list[int] = []
    grouped = probe.PROBES[probe.GroupedRolloutsDataModule]

    def noted(batch: probe.GRPOBatch, parts: int) -> probe.GRPOBatch:
        counted.extend(map(int, batch.completion_tokens))
        return grouped.share(batch, parts)

    monkeypatch.setitem(probe.PROBES, probe.GroupedRolloutsDataModule, grouped._replace(share=noted))
    probe.measure(config_of(f"stage={stage}", *ROLLOUT, "rollout.max_new_tokens=40"), None)
    assert 40 in counted and all(length == 40 or length <= 8 for length in counted)  # cut off, or ended by itself


def test_the_first_batch_warms_up_and_the_median_of_the_largest_counts() -> None:
    """Per token: 1 s at 4 tokens; 2, 9 and 3 s at 8. The optimizer's median is over all four: (2 + 4) / 2.

    Where there are fewer than three of the largest size, the last three count: of 1, 5 and 900 s the 5.
    """
    clock = probe._Clock(torch.device("cpu"))
    clock.readings = [(4, 1.0, 1.0), (8, 2.0, 2.0), (8, 9.0, 9.0), (8, 3.0, 4.0)]
    assert clock.medians() == (3.0, 3.0)
    clock.readings = [(2, 7.0, 1.0), (4, 1.0, 1.0), (8, 900.0, 1.0), (16, 5.0, 1.0)]
    assert clock.medians() == (5.0, 1.0)


def test_pretraining_samples_nothing() -> None:
    speed = probe.measure(config_of("stage=pretrain", "data.rows_per_batch=4"), None)
    assert speed.sampling_s == 0 and speed.new_tokens is None
    assert min(speed.training_s, speed.optimizer_s, speed.data_s) > 0
