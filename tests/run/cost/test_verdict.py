"""Remedies one after the other, by hand, on a stage of round numbers."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch

from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.run.cost import sharing
from r1_lightning.run.cost import verdict as module
from r1_lightning.run.cost.sampling_cost import Memory
from r1_lightning.run.cost.verdict import (
    GIB,
    Change,
    Machine,
    peak_bytes,
    saved_by_half_moments,
    saved_by_half_reference,
    verdict,
)
from r1_lightning.stages.adamw_bf16 import BF16AdamWConfig
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import MuonConfig
from r1_lightning.stages.muon_bf16 import BF16MuonConfig

with torch.device("meta"):
    FROZEN = torch.nn.Sequential(torch.nn.Embedding(2**14, 2**14), torch.nn.Linear(2**14, 3 * 2**14, bias=False))


class Policy(torch.nn.Module):
    """An embedding and four blocks of 2^26 weights each, a quarter of a GiB in FP32."""

    def __init__(self, compute: str = "fp32") -> None:
        super().__init__()
        self.precision = PlainPrecision(compute)
        with torch.device("meta"):
            self.embedding = torch.nn.Embedding(2**13, 2**13)
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(2**13, 2**13, bias=False) for _ in range(4))


class Stage:
    """Weights 4, gradients 4, moments 8 and a reference of 4 GiB; 16 rows keep 1 GiB each, a quarter of that recomputed.

    3 GiB of the reference are a linear layer, 1 GiB is an embedding.
    """

    prompts = ()
    micro_batches = 1
    parts: dict[str, Any] = {"optim": AdamWConfig(3e-4)}
    backbone = Policy()
    module = Namespace(reference=Namespace(backbone=FROZEN))
    data = Namespace(data=Namespace(micro_batches=1))

    def lasting_memory(self) -> list[Memory]:
        sizes = {"weights": 4, "gradients": 4, "optimizer state": 8, "reference": 4}
        return [Memory(name, size * GIB, "") for name, size in sizes.items()]

    def micro_batch(self) -> MicroBatch:
        return MicroBatch(16, 8, 128, 0)

    def wave(self) -> None:
        return None

    def sampling_memory(self, wave: Any = None) -> list[Memory]:
        return []

    def update_memory(self, batch: MicroBatch, recompute: bool) -> list[Memory]:
        return [Memory("activations, update", batch.rows * GIB // (4 if recompute else 1), "")]


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(module, "EmptyStage", Stage)
    monkeypatch.setattr(sharing, "blocks_of", lambda backbone: backbone.blocks)
    return Stage()


def lines(stage: Stage, gib: float, devices: int = 1, strategy: str = "fsdp") -> list[str]:
    machine = Machine(devices, gib * GIB, f"{devices} x {gib} GiB", strategy)
    return [" ".join(line.split()) for line in verdict(stage, machine)]


def test_it_fits_with_a_quarter_in_reserve(stage: Stage) -> None:
    """20 + 16 = 36 GiB, 45 with the reserve."""
    assert lines(stage, 45) == ["1 x 45 GiB: fits; 36 GiB and a quarter in reserve are 45 GiB"]
    assert lines(stage, 44)[1:] == ["trainer.recompute=true 24 GiB, fits"]


def test_remedies_in_their_order(stage: Stage) -> None:
    """24 recomputed; one row 20.25; the reference in BF16 18.75; BF16 moments 14.75, which is 18.4 with the reserve."""
    assert lines(stage, 19)[1:] == [
        "trainer.recompute=true 24 GiB",
        "data.micro_batches=16: 1 rows at a time for 16 20 GiB",
        "the reference's linear layers in BF16 19 GiB",
        "optim=adamw_bf16: the optimizer's moments in BF16 15 GiB, fits",
    ]
    assert "data.micro_batches=4: 4 rows at a time for 16 21 GiB, fits" in lines(stage, 27)


@pytest.mark.parametrize("optim", [BF16AdamWConfig(3e-4), BF16MuonConfig(3e-4)])
def test_what_is_in_bf16_already_is_not_halved_again(stage: Stage, optim: AdamWConfig) -> None:
    assert saved_by_half_reference(stage) == 1.5 * GIB and saved_by_half_moments(stage) == 4 * GIB
    stage.parts, stage.backbone = {"optim": optim}, Policy("bf16")
    assert peak_bytes(stage, Change(is_reference_half=True, are_moments_half=True)) == peak_bytes(stage, Change())
    assert not [line for line in lines(stage, 18)[1:] if "BF16" in line]


def test_each_optimizer_has_one_with_half_its_moments(stage: Stage) -> None:
    stage.parts = {"optim": MuonConfig(3e-4)}
    assert "optim=muon_bf16: the optimizer's moments in BF16 15 GiB, fits" in lines(stage, 19)


def test_a_reference_on_another_device_saves_nothing_here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "lasting_memory", lambda: [Memory("weights", 4 * GIB, "")])
    assert saved_by_half_reference(stage) == 0


def test_more_devices_and_no_way_at_all(stage: Stage) -> None:
    """14.5 GiB sharded over 4 are 3.6 each, with 0.25 of activations and 1.25 of what is gathered: 6.4 with the reserve."""
    more = lines(stage, 8)[-1]
    assert more.startswith("and 4 such devices, weights sharded over them 5.12 GiB each") and more.endswith("fits")
    assert "too large for such a device" in lines(stage, 0.5)[-1]


def test_several_devices_hold_shares(stage: Stage) -> None:
    """20 / 8; 2 of 16 rows; the root and its gradients, two blocks, and one's gradients, 5 quarters of a GiB: 5.75."""
    peak = peak_bytes(stage, Change(devices=8))
    assert peak / GIB == pytest.approx(20 / 8 + 2 + 1.25, rel=1e-6)
    (line,) = lines(stage, 139, devices=8)
    assert line.startswith("8 x 139 GiB: fits; 5.75 GiB each, weights sharded over them, and a quarter in reserve")


def test_several_devices_that_hold_the_whole_model(stage: Stage) -> None:
    """20, 4 more for DDP's buckets and 2 of 16 rows: 26. Recomputed 24.5, a row each 24.25; then 2.5 + 0.25 + 1.25."""
    assert peak_bytes(stage, Change(devices=8, strategy="ddp")) == 26 * GIB
    first, *remedies = lines(stage, 20, devices=8, strategy="ddp")
    assert first.startswith(
        "8 x 20 GiB: does not fit; 26 GiB each, the whole model on each, and a quarter in reserve are 32 GiB"
    )
    assert remedies == [
        "trainer.recompute=true 24 GiB",
        "data.micro_batches=2: 8 rows at a time for 16 24 GiB",
        "trainer=fsdp: weights sharded over the devices 4.00 GiB, fits",
    ]
