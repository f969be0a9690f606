"""The routed experts at once equal a loop over them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1_lightning.model import experts as module
from r1_lightning.model.expert_blocks import blocked_experts
from r1_lightning.model.experts import Experts, has_grouped_kernel
from r1_lightning.model.feed_forward import swiglu
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import normal, randomise, tiny, twins


def _experts(seed: int = 0) -> Experts:
    experts = Experts(tiny(), PlainPrecision())
    randomise(experts, seed)
    return experts


def _routes(n_tokens: int, n_experts: int = 8, n_chosen: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    chosen = normal(n_tokens, n_experts, seed=seed).topk(n_chosen).indices
    return chosen, normal(n_tokens, n_chosen, seed=seed + 1).sigmoid()


def _loop(experts: Experts, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
    outputs = []
    for token, its_experts, its_gates in zip(x, chosen.tolist(), gates, strict=True):
        parts = [swiglu(token @ experts.gate_up.weight[e]) @ experts.down.weight[e] for e in its_experts]
        outputs.append(sum(gate * part for gate, part in zip(its_gates, parts, strict=True)))
    return torch.stack(outputs)


def test_against_a_loop():
    experts, x = _experts(), normal(23, 32)
    chosen, gates = _routes(23)
    torch.testing.assert_close(experts(x, chosen, gates), _loop(experts, x, chosen, gates), atol=1e-5, rtol=0)


@pytest.mark.parametrize("chosen", [[[3, 3]] * 5, [[7, 0]], [[0, 1], [0, 1], [2, 1]]])
def test_experts_without_tokens(chosen):
    """Only some experts are busy, down to one expert for everything, or a single token."""
    experts, chosen = _experts(), torch.tensor(chosen)
    x, gates = normal(len(chosen), 32), normal(len(chosen), 2, seed=4)
    torch.testing.assert_close(experts(x, chosen, gates), _loop(experts, x, chosen, gates), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("n_experts", [8, 64])
def test_experts_are_compiled_as_grouped_products(n_experts, monkeypatch):
    """The same numbers and gradients in one graph; blocks are for BF16."""
    experts = Experts(tiny(n_routed_experts=n_experts), PlainPrecision(compile=True))
    randomise(experts, 0)
    used = []
    monkeypatch.setattr(module, "blocked_experts", lambda *given: used.append(len(given)) or blocked_experts(*given))
    compiled = torch.compile(Experts.forward, dynamic=True, fullgraph=True)
    results = []
    for static, compute in ((False, Experts.forward), (True, compiled)):
        experts.static_shapes, (chosen, gates) = static, _routes(600, n_experts)
        x = normal(600, 32).requires_grad_()
        output = compute(experts, x, chosen, gates)
        wanted = [x, *experts.parameters()]
        results.append([output, *torch.autograd.grad((output * normal(600, 32, seed=3)).sum(), wanted)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert not used
    with torch.autocast("cpu", dtype=torch.bfloat16):
        experts(normal(600, 32), *_routes(600, n_experts))
    assert used


@torch.no_grad()
def test_against_huggingface():
    model, twin = twins()
    x = normal(40, 32)
    chosen, gates = _routes(40)
    ours = model.blocks[1].feed_forward.experts(x, chosen, gates)
    theirs = twin.model.layers[1].mlp.experts(x, chosen, gates)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_gradients_against_a_loop():
    x, (chosen, gates), weighting = normal(17, 32), _routes(17), normal(17, 32, seed=9)
    results = []
    for forward in (lambda experts, *inputs: experts(*inputs), _loop):
        experts = _experts()
        leaves = [x.clone().requires_grad_(), gates.clone().requires_grad_()]
        (forward(experts, leaves[0], chosen, leaves[1]) * weighting).sum().backward()
        results.append([*(leaf.grad for leaf in leaves), experts.gate_up.weight.grad, experts.down.weight.grad])
    for ours, theirs in zip(*results, strict=True):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_order_of_tokens_and_of_choices_does_not_matter():
    experts, x = _experts(), normal(23, 32)
    chosen, gates = _routes(23)
    expected = experts(x, chosen, gates)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(experts(x[order], chosen[order], gates[order]), expected[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(experts(x, chosen.flip(-1), gates.flip(-1)), expected, atol=1e-5, rtol=0)


def test_tokens_do_not_influence_each_other():
    experts, x = _experts(), normal(23, 32)
    chosen, gates = _routes(23)
    parts = [experts(x[s], chosen[s], gates[s]) for s in (slice(0, 9), slice(9, 23))]
    torch.testing.assert_close(torch.cat(parts), experts(x, chosen, gates), atol=1e-5, rtol=0)


def test_gates_scale_the_output():
    experts, x = _experts(), normal(23, 32)
    chosen, gates = _routes(23)
    torch.testing.assert_close(experts(x, chosen, 2.5 * gates), 2.5 * experts(x, chosen, gates), atol=1e-5, rtol=1e-5)
    assert experts(x, chosen, torch.zeros_like(gates)).abs().max() == 0.0


def test_a_gpu_in_16_bits_keeps_grouped_products_when_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice, and that a compiler can follow it: blocks of experts are not asked, and the sum is the same."""
    assert not has_grouped_kernel("cpu") and not has_grouped_kernel("cuda")
    with monkeypatch.context() as patch:  # torch has no autocast for a GPU that is not there
        patch.setattr(module, "compute_type", lambda device_type: torch.bfloat16)
        assert has_grouped_kernel("cuda") and not has_grouped_kernel("cpu")
    layer = Experts(tiny(), PlainPrecision("bf16"))
    randomise(layer, 3)
    x, chosen, gates = torch.randn(5, 32), torch.tensor([[0, 3], [3, 7], [1, 0], [7, 6], [3, 1]]), torch.rand(5, 2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = layer(x, chosen, gates)
        layer.static_shapes = True
        monkeypatch.setattr(module, "has_grouped_kernel", lambda device_type: True)
        monkeypatch.setattr(module, "dense_experts", None)
        traced = torch.compile(layer.forward, backend="eager", fullgraph=True, dynamic=True)
        assert torch.equal(layer(x, chosen, gates), expected) and torch.equal(traced(x, chosen, gates), expected)


def test_on_another_device_than_a_cpu_compiled_experts_in_fp32_stay_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph can be compiled through `grouped_mm` in FP32 there; the meta device stands for it."""
    used: list[int] = []
    monkeypatch.setattr(module, "blocked_experts", lambda x, *given: used.append(len(given)) or x)
    monkeypatch.setattr(module, "in_compute_type", lambda weight: weight)  # that device knows no autocast
    with torch.device("meta"):
        experts = Experts(tiny(), PlainPrecision(compile=True))
        experts(torch.zeros(600, 32), torch.zeros(600, 2, dtype=torch.long), torch.zeros(600, 2))
    assert used == [4]
