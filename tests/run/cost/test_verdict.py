"""Remedies one after the other, by hand, on a stage of round numbers."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch

from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.precision import PlainPrecision
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

with torch.device("meta"):
    FROZEN = torch.nn.Sequential(torch.nn.Embedding(2**14, 2**14), torch.nn.Linear(2**14, 3 * 2**14, bias=False))


class Stage:
    """Weights 4, gradients 4, moments 8 and a reference of 4 GiB; 16 rows keep 1 GiB each, a quarter of that recomputed.

    3 GiB of the reference are a linear layer, 1 GiB is an embedding.
    """

    prompts = ()
    micro_batches = 1
    parts: dict[str, Any] = {"optim": AdamWConfig(3e-4)}
    backbone = Namespace(precision=PlainPrecision())
    module = Namespace(reference=Namespace(backbone=FROZEN))
    data = Namespace(data=Namespace(micro_batches=1))
    network = Namespace(n_layers=4, parameters=lambda: Namespace(total=GIB, embeddings=GIB // 5))

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
    return Stage()


def lines(stage: Stage, gib: float, devices: int = 1) -> list[str]:
    return [" ".join(line.split()) for line in verdict(stage, Machine(devices, gib * GIB, f"{devices} x {gib} GiB"))]


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


@pytest.mark.parametrize("optim", [BF16AdamWConfig(3e-4), MuonConfig(3e-4)])
def test_what_is_in_bf16_already_is_not_halved_again(stage: Stage, optim: AdamWConfig) -> None:
    """And Muon has no moments in BF16 to offer."""
    assert saved_by_half_reference(stage) == 1.5 * GIB and saved_by_half_moments(stage) == 4 * GIB
    stage.parts, stage.backbone = {"optim": optim}, Namespace(precision=PlainPrecision("bf16"))
    assert peak_bytes(stage, Change(is_reference_half=True, are_moments_half=True)) == peak_bytes(stage, Change())
    assert not [line for line in lines(stage, 18)[1:] if "BF16" in line]


def test_a_reference_on_another_device_saves_nothing_here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "lasting_memory", lambda: [Memory("weights", 4 * GIB, "")])
    assert saved_by_half_reference(stage) == 0


def test_more_devices_and_no_way_at_all(stage: Stage) -> None:
    """14.5 GiB shared out among 4 are 3.6 each, with 0.25 of activations and two gathered blocks of 0.8."""
    more = lines(stage, 8)[-1]
    assert more.startswith("and 4 such devices, all shared out among them (not built yet)") and more.endswith("fits")
    assert "too large for such a device" in lines(stage, 0.5)[-1]


def test_several_devices_share_everything_out(stage: Stage) -> None:
    """20 / 8 + 2 of 16 rows + twice a block of 0.2 G weights in FP32 (1.6 GiB): 6.1 GiB."""
    peak = peak_bytes(stage, Change(devices=8))
    assert peak / GIB == pytest.approx(20 / 8 + 2 + 1.6, rel=1e-6)
    (line,) = lines(stage, 139, devices=8)
    assert line.startswith("8 x 139 GiB: fits; 6.10 GiB each, all shared out among them (not built yet: one device")
