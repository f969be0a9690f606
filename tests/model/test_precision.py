"""The factories of linear layers, and the grouped product of the experts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.precision import GroupedLinear, PlainPrecision
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import backbone, normal, tiny

BF16, MIXED = PlainPrecision("bf16"), PlainPrecision("bf16", decode="fp32")


def _grouped(seed: int = 0) -> GroupedLinear:
    layer = GroupedLinear(4, 16, 8)
    with torch.no_grad():
        layer.weight.copy_(normal(4, 16, 8, seed=seed))
    return layer


def _loop(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    starts = [0, *ends.tolist()[:-1]]
    return torch.cat([x[a:b] @ weight[e] for e, (a, b) in enumerate(zip(starts, ends.tolist(), strict=True))])


@pytest.mark.parametrize("counts", [(3, 2, 5, 1), (0, 11, 0, 0), (0, 0, 0, 1), (4, 0, 4, 3)])
def test_grouped_linear_against_a_loop_over_groups(counts):
    layer, x = _grouped(), normal(sum(counts), 16, seed=1)
    ends = torch.tensor(counts).cumsum(0).to(torch.int32)
    torch.testing.assert_close(layer(x, ends), _loop(x, layer.weight, ends), atol=1e-5, rtol=0)


def test_grouped_linear_gradients_against_a_loop():
    layer, ends = _grouped(), torch.tensor([3, 3, 8, 9], dtype=torch.int32)
    x, weighting = normal(9, 16, seed=1).requires_grad_(), normal(9, 8, seed=2)
    (layer(x, ends) * weighting).sum().backward()
    other_x, other_weight = x.detach().requires_grad_(), layer.weight.detach().requires_grad_()
    (_loop(other_x, other_weight, ends) * weighting).sum().backward()
    torch.testing.assert_close(x.grad, other_x.grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.weight.grad, other_weight.grad, atol=1e-5, rtol=0)
    assert layer.weight.grad[1].abs().max() == 0.0  # group 1 is empty


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    precision = PlainPrecision("bf16")
    linear, grouped = precision.linear(16, 8, fp8_eligible=True), precision.grouped_linear(4, 16, 8, fp8_eligible=True)
    with torch.no_grad():
        grouped.weight.copy_(normal(4, 16, 8))
    x, ends = normal(9, 16, seed=1), torch.tensor([3, 3, 8, 9], dtype=torch.int32)
    with precision.autocast("cpu"):
        outputs = (linear(x), grouped(x, ends))
    assert [output.dtype for output in outputs] == [torch.bfloat16] * 2
    assert [layer.weight.dtype for layer in (linear, grouped)] == [torch.float32] * 2
    exact = _loop(x, grouped.weight, ends)  # a BF16 number has 8 bits: relative steps of 2^-8 = 0.0039
    assert (outputs[1].float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_fp32_leaves_everything_in_fp32():
    precision = PlainPrecision()
    with precision.autocast("cpu"):
        assert not torch.is_autocast_enabled("cpu")
        assert precision.linear(16, 8, fp8_eligible=True)(normal(2, 16)).dtype == torch.float32


def test_linear_layers_have_no_bias():
    assert PlainPrecision().linear(16, 8, fp8_eligible=False).bias is None


@pytest.mark.parametrize("compute", ["fp16", "BF16", 32, None])
def test_unknown_compute_type_is_named(compute):
    with pytest.raises(InvalidInput, match=r"precision.compute=.* must be one of fp32, bf16"):
        PlainPrecision(compute)


def test_how_closely_sampler_and_training_must_agree_depends_on_the_type():
    fp32, bf16 = PlainPrecision("fp32"), PlainPrecision("bf16")
    assert (fp32.logprob_tolerance, fp32.mean_logprob_tolerance, fp32.max_flipped_fraction) == (1e-4, 1e-4, 1e-3)
    assert bf16.logprob_tolerance > 100 * fp32.logprob_tolerance and bf16.max_flipped_fraction == 1.0
    assert 0.035 < bf16.mean_logprob_tolerance < 0.1  # rounding of 30 layers; a temperature of 0.9 in place of 1


@pytest.mark.parametrize("compile", ["yes", None, 2])
def test_compile_is_true_or_false(compile):
    with pytest.raises(InvalidInput, match=r"precision.compile=.* must be one of True, False"):
        PlainPrecision(compile=compile)


def test_compiling_without_a_compiler_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InvalidInput, match=r"precision.compile=True is not allowed: it needs a C\+\+ compiler"):
        PlainPrecision(compile=True)
    PlainPrecision()  # and without it nothing is asked for


def test_a_function_is_compiled_once_for_all_layers():
    def function(x: Tensor) -> Tensor:
        return x

    precision = PlainPrecision(compile=True)
    assert precision.compiled(function) is precision.compiled(function)
    assert precision.compiled(function) is not function
    assert PlainPrecision().compiled(function) is function


def test_decoding_in_fp32_beside_training_in_bf16() -> None:
    """Steps, cache and logits are those of FP32 to the bit, the training forward is that of BF16."""
    fp32 = backbone(tiny())
    bf16, mixed = (DeepSeekBackbone(fp32.config, precision) for precision in (BF16, MIXED))
    for twin in (bf16, mixed):
        twin.load_state_dict(fp32.state_dict())
    token_ids, is_token = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    seen = []
    for model in (fp32, mixed, bf16):
        cache = model.new_cache(2, 6)
        hidden = model.step(token_ids, is_token, cache).hidden
        seen.append([hidden, model.unembed(hidden), *cache.states])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen[1], seen[0], strict=True))
    assert not torch.equal(seen[2][1], seen[0][1])
    batch = TokenBatch.of_whole_rows(token_ids)
    assert torch.equal(mixed.hidden(batch).hidden, bf16.hidden(batch).hidden)
    assert mixed.unembed(mixed.hidden(batch).hidden.bfloat16()).dtype == torch.float32  # also of what training leaves


def test_decoding_has_no_other_type() -> None:
    with pytest.raises(InvalidInput, match=r"precision\.decode='bf16' is not allowed"):
        PlainPrecision("fp32", decode="bf16")  # type: ignore[arg-type]
