"""Compiled or not, in static shapes or as the routes fall: the same numbers, and gradients as good as autocast's own."""

from __future__ import annotations

import copy
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.masking import document_attention_mask
from r1_lightning.model import masked_attention
from r1_lightning.model import precision as module
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.expert_blocks import DENSE_PAIRS
from r1_lightning.model.masked_attention import spelled_out_attention
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import backbone, left_pad, normal, pack, random_documents, tiny

# 30 rows of 20 tokens times 8 experts are more than DENSE_PAIRS, so blocks are used; a decoding step takes the dense way.
ROWS, LENGTHS = 30, [7, 3, 10]
HYBRID = tiny(attention_kind="lightning", softmax_attention_every=2)


def _batch() -> Any:
    assert ROWS * sum(LENGTHS) * 8 > DENSE_PAIRS
    return pack([random_documents(LENGTHS, 61, seed) for seed in range(ROWS)])


def _twin(model: DeepSeekBackbone, compute: str = "fp32", compile: bool = True) -> DeepSeekBackbone:
    twin = DeepSeekBackbone(model.config, PlainPrecision(compute, compile))  # type: ignore[arg-type]
    twin.load_state_dict(model.state_dict())
    return twin


def _loss_and_gradients(model: DeepSeekBackbone, replayed: Tensor | None = None) -> list[Tensor]:
    batch = _batch()
    model.train()
    output = model.hidden(batch, replayed_LBTK=replayed)
    loss = output.balance_loss
    for places, hidden in enumerate((output.hidden, *output.mtp), 1):
        logprobs, _ = model.token_logprobs(hidden.flatten(0, 1), batch.token_ids.roll(-places, 1).flatten(), 0.7)
        loss = loss - logprobs.mean()
    return [loss, *torch.autograd.grad(loss, list(model.parameters())), output.expert_load.float()]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def assert_same_everywhere(model: DeepSeekBackbone) -> None:
    """Training forward and backward, replayed routes, a frozen copy without gradients, prefill and decoding."""
    twin = _twin(model)
    assert_same(_loss_and_gradients(twin), _loss_and_gradients(model))
    replayed = torch.randint(8, (1, ROWS, sum(LENGTHS), 2), generator=torch.Generator().manual_seed(0))
    replayed[..., 1] = (replayed[..., 0] + 1) % 8
    assert_same(_loss_and_gradients(twin, replayed), _loss_and_gradients(model, replayed))
    prompts, outputs = random_documents([4, 6], 61, seed=1), []
    for each in (model, twin):
        each.eval().requires_grad_(False)
        with torch.no_grad():
            cache = each.new_cache(2, 9)
            steps = [each.step(*left_pad(prompts), cache).hidden[:, -1:]]
            for token in (3, 4, 5):
                steps.append(each.step(torch.full((2, 1), token), torch.ones(2, 1, dtype=torch.bool), cache).hidden)
            outputs.append([each.hidden(_batch()).hidden, *steps])
    assert_same(outputs[1], outputs[0])


@pytest.mark.parametrize("config", [tiny(), tiny(q_lora_rank=None, n_expert_groups=1, n_limited_groups=1), HYBRID])
def test_static_shapes_change_nothing(config, monkeypatch):
    """The code that is compiled, run without the compiler, which takes its time."""
    monkeypatch.setattr(module, "compiled_once", lambda function: function)
    assert_same_everywhere(backbone(config))


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
def test_compiling_around_attention_changes_nothing(monkeypatch):
    """Rows too long for a dense mask go through blocks that are compiled in halves."""
    monkeypatch.setattr(masked_attention, "MOST_DENSE_TOKENS", 8)
    model = backbone()
    assert_same(_loss_and_gradients(_twin(model)), _loss_and_gradients(model))


@pytest.fixture
def without_shape_checks():
    """The checks of annotations that tests put around `functional` are nothing that a compiler could follow."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    "config", [pytest.param(tiny(), marks=pytest.mark.slow), pytest.param(HYBRID, marks=pytest.mark.long)]
)
def test_compiling_changes_nothing(config):
    assert_same_everywhere(backbone(config))


@pytest.mark.long
@pytest.mark.usefixtures("without_shape_checks")
def test_compiled_bf16_is_as_near_to_fp32_as_autocast():
    """Attention scores are rounded to BF16 where torch's fused kernel keeps them in FP32: that must not show."""
    model = backbone()
    exact = _loss_and_gradients(model)
    errors = []
    for compile in (False, True):
        found = _loss_and_gradients(_twin(model, "bf16", compile))
        gradients = torch.cat([(a - b).flatten() for a, b in zip(found[1:-1], exact[1:-1], strict=True)])
        errors.append((abs(float((found[0] - exact[0]).detach())), float(gradients.norm())))
    (autocast_loss, autocast_gradient), (loss, gradient) = errors
    assert loss < 2 * autocast_loss + 1e-3
    assert 0 < gradient < 1.5 * autocast_gradient


def test_a_copy_of_a_model_works_on_its_own_weights():
    """The reference is a deep copy: what is compiled must not hold on to the policy."""
    model = backbone()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
        assert not torch.equal(model.hidden(_batch()).hidden, other.hidden(_batch()).hidden)


def test_attention_spelled_out_is_torchs_attention():
    q, k, v = (normal(2, 3, 7, width, seed=seed) for seed, width in ((0, 8), (1, 8), (2, 5)))
    mask = document_attention_mask(torch.tensor([[1, 1, 1, 2, 2, 2, 0]] * 2))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=0.3)
    torch.testing.assert_close(spelled_out_attention(q, k, v, mask, 0.3), expected, atol=1e-6, rtol=1e-5)
