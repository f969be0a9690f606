"""Initial weights are a function of the seed, with the configured spread."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.init import DRAWN_AT, DrawnOnCPU, init_weights
from tests.model.tiny import tiny

CONFIG = tiny(d_model=64, d_ff_dense=128, init_std=0.05, mtp_depth=1)


def test_matrices_have_the_configured_std_norms_are_ones_biases_zero():
    model = DeepSeekBackbone(CONFIG, seed=1)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            # The std of n draws is known to about 1 / sqrt(2 n); five times that leaves chance no room
            assert parameter.std().item() == pytest.approx(0.05, rel=5 / (2 * parameter.numel()) ** 0.5), name
            assert abs(parameter.mean().item()) < 5 * 0.05 / parameter.numel() ** 0.5, name
    assert model.expert_bias().abs().max() == 0.0


def test_the_seed_decides_whatever_happened_before():
    torch.manual_seed(1)
    one = DeepSeekBackbone(CONFIG, seed=7).state_dict()
    torch.manual_seed(2)
    torch.rand(10)
    two, other = DeepSeekBackbone(CONFIG, seed=7).state_dict(), DeepSeekBackbone(CONFIG, seed=8).state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [name for name in one if one[name].dim() > 1]
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


def test_no_two_matrices_are_alike():
    weights = [p.flatten()[:40] for p in DeepSeekBackbone(CONFIG, seed=3).parameters() if p.dim() > 1]
    assert len({tuple(weight.tolist()) for weight in weights}) == len(weights)


def test_weights_already_there_are_overwritten():
    model = DeepSeekBackbone(CONFIG, seed=7)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    model.set_expert_bias(torch.full((2, 8), 9.0))
    init_weights(model, CONFIG.init_std, seed=7)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_draws_for_another_device_are_made_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU: drawn there nothing would be taken from the CPU's generator.

    tests/run/test_on_a_gpu.py compares the numbers on a pretend GPU.
    """

    def state_after(*drawn: str) -> list[int]:
        monkeypatch.setattr("r1_lightning.model.init.DRAWN_AT", drawn)
        torch.manual_seed(0)
        with DrawnOnCPU(), torch.device("meta"):
            weight = nn.Linear(3, 5).weight
            made = torch.randn(4)
        assert weight.is_meta and made.is_meta
        return torch.get_rng_state().tolist()

    untouched = state_after(*DRAWN_AT)
    torch.manual_seed(0)
    assert untouched == torch.get_rng_state().tolist()
    nn.Linear(3, 5)
    torch.randn(4)
    assert state_after("cpu") == torch.get_rng_state().tolist()


def test_a_draw_in_the_shape_of_another_tensor_is_made_on_the_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `transformers` draws time steps of Olmo hybrid: by `torch.rand_like` of a weight, which names no device."""
    monkeypatch.setattr("r1_lightning.model.init.DRAWN_AT", ("cpu",))
    shape = torch.empty(5, device="meta")
    torch.manual_seed(0)
    with DrawnOnCPU():
        made = [torch.rand_like(shape), torch.randn_like(shape, dtype=torch.float64)]
    assert [(one.device.type, one.dtype) for one in made] == [("meta", torch.float32), ("meta", torch.float64)]
    found = torch.get_rng_state().tolist()
    torch.manual_seed(0)
    torch.rand(5), torch.randn(5, dtype=torch.float64)
    assert found == torch.get_rng_state().tolist()
