"""One transformer block, dense and with experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.masked_attention import DenseRows, DocumentRows
from r1_lightning.model.mla import step_mask
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import angles, backbone, normal, tiny, twins

DENSE, MIXTURE = 0, 1  # the layers of the tiny model


def _inputs(model, length: int = 12):
    position_ids = torch.arange(length).expand(2, length)
    ones = torch.ones(2, length, dtype=torch.long)
    x = normal(2, length, model.config.d_model)
    return x, *angles(model, position_ids), DenseRows.of(ones), ones.bool()


@pytest.mark.parametrize("layer", [DENSE, MIXTURE])
@pytest.mark.parametrize("norm_eps", [1e-6, 1e-2])
@torch.no_grad()
def test_against_huggingface(layer, norm_eps):
    model, twin = twins(tiny(norm_eps=norm_eps))
    x, cos, sin, mask, is_token = _inputs(model)
    y, stats = model.blocks[layer](x, cos, sin, mask, is_token)
    both = (torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))
    theirs = twin.model.layers[layer](x, attention_mask=mask.mask, position_embeddings=both)
    torch.testing.assert_close(y, theirs, atol=1e-5, rtol=0)
    assert (stats is None) == (layer == DENSE)


@pytest.mark.parametrize("layer", [DENSE, MIXTURE])
@torch.no_grad()
def test_steps_equal_the_forward(layer):
    model = backbone()
    x, cos, sin, mask, is_token = _inputs(model)
    whole, stats = model.blocks[layer](x, cos, sin, mask, is_token)
    cache, outputs, routes = model.new_cache(2, 12), [], []
    for new in (slice(0, 5), slice(5, 6), slice(6, 12)):
        _, attend = cache.advance(is_token[:, new])
        mask_of_step = step_mask(attend, model.config.n_heads, torch.float32)
        y, step_stats = model.blocks[layer].step(
            x[:, new], cos[:, new], sin[:, new], mask_of_step, is_token[:, new], cache.states[layer], new.start
        )
        outputs.append(y)
        routes.append(step_stats)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, atol=1e-5, rtol=0)
    if layer == MIXTURE:
        assert torch.equal(torch.cat([part.routes for part in routes], 1).sort(-1)[0], stats.routes.sort(-1)[0])


@torch.no_grad()
def test_both_halves_add_to_the_residual():
    """With both output projections at zero a block hands its input through unchanged."""
    model = backbone()
    block = model.blocks[DENSE]
    block.attention.out.weight.zero_()
    block.feed_forward.down.weight.zero_()
    x, *rest = _inputs(model)
    assert torch.equal(block(x, *rest)[0], x)


class _Recording(PlainPrecision):
    """Names what runs compiled, and does not compile it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self.names.append(function.__name__)
            return function(*arguments)

        return run


@pytest.mark.parametrize("layer", [DENSE, MIXTURE])
@torch.no_grad()
def test_a_compiler_gets_the_whole_block_or_what_stands_around_its_attention(layer):
    precision = _Recording()
    model = DeepSeekBackbone(tiny(), precision)
    x, cos, sin, mask, is_token = _inputs(model)
    whole, _ = model.blocks[layer](x, cos, sin, mask, is_token)
    halves, _ = model.blocks[layer](x, cos, sin, DocumentRows.of(is_token.long()), is_token)
    assert precision.names == ["_run_block", "_before_attention", "_after_attention"]
    torch.testing.assert_close(halves, whole, atol=1e-5, rtol=0)
