"""AdamW with BF16 moments: torch's own steps within BF16's precision, no moment that stands still, and the same bits on resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.functional.shards import whole
from r1_lightning.stages import adamw_bf16
from r1_lightning.stages.adamw_bf16 import BF16AdamW, BF16AdamWConfig, drawn, rounded_at_random, seed_of
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.muon import state_bytes
from r1_lightning.types.processes import Processes
from tests.support.miniature import Miniature, Spy, fingerprint, trainer
from tests.support.processes import in_processes


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(40, 30)


def train(module: nn.Module, config: AdamWConfig, steps: int, optimizer: Any = None) -> torch.optim.Optimizer:
    """Take steps with gradients that depend on the step alone."""
    optimizer = optimizer or config.build(module)
    first = max((int(state["step"]) for state in optimizer.state.values()), default=0)
    for step in range(first, first + steps):
        for number, parameter in enumerate(module.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=seeded(2 * step + number)) + 0.5
        optimizer.step()
    return optimizer


def test_rounding_goes_to_a_neighbour_and_is_right_on_average() -> None:
    # BF16 has 7 bits after the point: from 1 the next number is 1 + 1/128. 1 + 1/512 lies a quarter of the way.
    x = torch.full((100_000,), 1 + 1 / 512)
    found = rounded_at_random(x, drawn(len(x), x.device, seeded())).float()
    assert set(found.tolist()) == {1.0, 1 + 1 / 128}
    share = (found > 1).float().mean().item()
    assert abs(share - 0.25) < 0.006  # 4 standard deviations of 0.00137
    assert torch.equal(rounded_at_random(-x, drawn(len(x), x.device, seeded())).float(), -found)


def test_what_bf16_holds_exactly_is_not_moved() -> None:
    x = torch.randn(10_000, generator=seeded()).bfloat16()
    x[:3] = torch.tensor([0.0, 1e-30, -3e38])
    assert torch.equal(rounded_at_random(x.float(), drawn(len(x), x.device, seeded())), x)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_the_first_step_is_torch_s(weight_decay: float) -> None:
    """The moments are rounded after they are used, so the first step has no error but FP32's."""
    settings: dict[str, Any] = {"lr": 0.1, "weight_decay": weight_decay}
    ours, theirs = layer(), layer()
    train(ours, BF16AdamWConfig(**settings), 1)
    train(theirs, AdamWConfig(**settings), 1)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)


def test_later_steps_are_torch_s_within_the_precision_of_bf16() -> None:
    """30 steps of a weight that moves by 30 x 0.01 at most end within a hundredth of its way."""
    ours, theirs = layer(), layer()
    train(ours, BF16AdamWConfig(lr=0.01), 30)
    train(theirs, AdamWConfig(lr=0.01), 30)
    way = (theirs.weight - layer().weight).abs().mean()
    assert way > 0.1
    assert (ours.weight - theirs.weight).abs().mean() < 0.01 * way


def test_a_moment_does_not_stand_still() -> None:
    """From gradients of 1 to gradients of 1/2, with beta2 = 0.999, where each step changes v by less than half of BF16's spacing.

    v goes from 1 towards 1/4: after 1,000 steps it is 1/4 + 3/4 * 0.999^1000 = 0.5258. Rounded to the nearest it would stay 1.
    """
    weight = nn.Parameter(torch.zeros(1000))
    optimizer = BF16AdamW([{"params": [weight]}], lr=1e-3, betas=(0.9, 0.999))
    weight.grad = torch.ones(1000)
    optimizer.step()
    optimizer.state[weight]["exp_avg_sq"].fill_(1.0)
    weight.grad.fill_(0.5)
    for _ in range(1000):
        optimizer.step()
    assert optimizer.state[weight]["exp_avg_sq"].float().mean().item() == pytest.approx(0.5258, rel=0.01)


def test_a_state_that_was_saved_goes_on_with_the_same_bits() -> None:
    config, whole, parts = BF16AdamWConfig(lr=0.1), layer(), layer()
    train(whole, config, 6)
    saved = train(parts, config, 3).state_dict()
    assert {value.dtype for state in saved["state"].values() for value in (state["exp_avg"], state["exp_avg_sq"])} == {
        torch.bfloat16
    }
    resumed = config.build(parts)
    resumed.load_state_dict(saved)
    train(parts, config, 3, resumed)
    assert fingerprint(parts) == fingerprint(whole)


def test_a_large_parameter_is_updated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws differ, the first step does not: it uses the moments before they are rounded."""
    whole, pieces = layer(), layer()
    train(whole, BF16AdamWConfig(lr=0.1), 1)
    monkeypatch.setattr(adamw_bf16, "PIECE", 7)
    train(pieces, BF16AdamWConfig(lr=0.1), 1)
    assert torch.equal(whole.weight, pieces.weight) and torch.equal(whole.bias, pieces.bias)


def test_the_state_is_half_of_adamw_s() -> None:
    module = layer()
    optimizer = train(module, BF16AdamWConfig(lr=0.1), 1)
    # 40 x 30 + 30 parameters, two moments of two bytes
    assert state_bytes(optimizer) == 1230 * 2 * 2 == state_bytes(AdamWConfig(lr=0.1).build(module)) / 2
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert sum(moment.nbytes for moment in moments) == state_bytes(optimizer)


def test_a_run_stopped_anywhere_ends_with_the_same_bits(tmp_path: Path) -> None:
    def run(folder: Path, stop: int = 99) -> int:
        miniature = Miniature(max_steps=4, optim=BF16AdamWConfig(lr=0.01))
        stopping = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop))
        path = checkpoint_to_resume(folder)
        fit = trainer(4, folder, [ResumeCheckpoint(folder, 1), stopping])
        fit.fit(miniature.pretrain(), miniature.text(), ckpt_path=path, weights_only=True if path else None)
        return fingerprint(miniature.model)

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=2)
    assert run(tmp_path / "parts") == whole


def test_steps_far_apart_draw_differently() -> None:
    """torch's CPU generator reads the lower 32 bits of a seed: 4,096 steps of 2**20 numbers each would go round once."""
    pairs = [(step + far, number) for step in (7, 8) for far in (0, 4096, 2**20) for number in (0, 1, 2**20 - 1)]
    seeds = [seed_of(*pair) for pair in pairs]
    assert len({seed % 2**32 for seed in seeds}) == len({seed >> 32 for seed in seeds}) == len(pairs)
    # The first output of SplitMix64 from state 0, as published with its reference code.
    assert seed_of(0, 0) == 0xE220A8397B1DCDAF % 2**63
    weight = nn.Parameter(torch.zeros(1000))
    drawn = []
    for before in (6, 6 + 4096):
        optimizer = BF16AdamW([{"params": [weight]}], lr=0.0, betas=(0.9, 0.999))
        optimizer.state[weight] = {
            "step": torch.tensor(float(before)),
            **{name: torch.ones(1000, dtype=torch.bfloat16) for name in ("exp_avg", "exp_avg_sq")},
        }
        weight.grad = torch.full((1000,), 0.99)
        optimizer.step()
        drawn.append(optimizer.state[weight]["exp_avg"])
    assert not torch.equal(*drawn)


def same_gradients(processes: Processes) -> None:
    """Three steps of a matrix of 5 rows in pieces of 7 elements, whole and divided, with the same gradients."""
    adamw_bf16.PIECE = 7
    config, mesh = BF16AdamWConfig(lr=0.01), init_device_mesh("cpu", (processes.count,))
    alone, divided = nn.Parameter(torch.randn(5, 4, generator=seeded())), nn.Module()
    divided.weight = nn.Parameter(distribute_tensor(alone.detach(), mesh, [Shard(0)]))
    optimizers = [config.build(nn.ParameterList([alone])), config.build(divided)]
    for step in range(3):
        alone.grad = torch.randn(5, 4, generator=seeded(step))
        divided.weight.grad = distribute_tensor(alone.grad, mesh, [Shard(0)])
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(whole(divided.weight), alone)
    for name in adamw_bf16.MOMENTS:
        assert torch.equal(whole(optimizers[1].state[divided.weight][name]), optimizers[0].state[alone][name])


@pytest.mark.slow
def test_divided_parameters_are_rounded_as_whole_ones_are() -> None:
    assert in_processes(2, same_gradients) == [None, None]
