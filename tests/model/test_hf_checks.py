"""What a model of `transformers` must be: its logits a constant times the head's product, its dropout 0."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.model.hf_checks import decoder_gives, logit_factor, still
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.types.errors import InvalidInput
from tests.support.hf_folders import DENSE


def made(kind: str = "llama", **changes: Any) -> HFBackbone:
    return HFBackbone(HFModelConfig({"model_type": kind, **DENSE, **changes})).eval()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, 1.0), ({"logits_scaling": 8.0}, 0.125), ({"logit_scale": 0.0625}, 0.0625), ({"logit_scale": None}, 1.0)],
)
def test_the_constant_of_the_logits(fields: dict[str, Any], expected: float) -> None:
    assert logit_factor(SimpleNamespace(**fields)) == expected


@pytest.mark.parametrize(
    ("kind", "field", "value"), [("granite", "logits_scaling", 3.0), ("cohere", "logit_scale", 0.3)]
)
@torch.no_grad()
def test_logits_with_a_constant_are_the_heads_product(kind: str, field: str, value: float) -> None:
    """Log-probs are made from hidden states and the head, tile by tile, so the constant must be in the hidden states."""
    backbone = made(kind, **{field: value, "pad_token_id": None})
    ids = torch.arange(12)[None]
    expected = backbone.model(ids).logits
    assert (backbone(ids) - expected).abs().max() <= 1e-5
    hidden = backbone.decoder(input_ids=ids).last_hidden_state
    assert (backbone.head(hidden) - expected).abs().max() > 0.1


class _Layers(torch.nn.Module):
    def forward(self, input_ids: Tensor) -> Tensor:
        raise AssertionError("a layer ran")


@torch.no_grad()
def test_the_check_runs_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = made()
    monkeypatch.setattr(type(backbone.decoder), "forward", _Layers.forward)
    backbone.check_head()
    with pytest.raises(AssertionError, match="a layer ran"):
        backbone.decoder(input_ids=torch.arange(4)[None])


@torch.no_grad()
def test_a_decoder_is_itself_again_after_an_error() -> None:
    backbone, ids = made(), torch.arange(4)[None]
    expected = backbone.decoder(input_ids=ids).last_hidden_state
    with pytest.raises(KeyError), decoder_gives(backbone.decoder, torch.zeros(1, 4, 32)):
        assert not backbone.decoder(input_ids=ids).last_hidden_state.any()
        raise KeyError
    assert torch.equal(backbone.decoder(input_ids=ids).last_hidden_state, expected)


@pytest.mark.parametrize("more", [lambda logits: 30 * torch.tanh(logits / 30), lambda logits: logits * 1.01])
def test_logits_that_are_more_are_refused(more: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = made()
    forward = type(backbone.model).forward

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.logits = more(output.logits)
        return output

    monkeypatch.setattr(type(backbone.model), "forward", changed)
    with pytest.raises(InvalidInput, match="its logits are more than its head's product"):
        backbone.check_head()


@pytest.mark.parametrize("kind", ["bart", "blenderbot", "blenderbot-small"])
def test_a_decoder_that_counts_positions_itself_is_refused(kind: str) -> None:
    """It takes `position_ids` and ignores them; the width of BART's layers is `d_model`, so these are small, too."""
    small = {"d_model": 32, "decoder_layers": 1, "encoder_layers": 1, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32}
    with pytest.raises(InvalidInput, match=f"model_type='{kind}' is not allowed: its decoder takes no position ids"):
        made(kind, **small, decoder_attention_heads=4, encoder_attention_heads=4)


def test_dropout_and_padding_are_unset() -> None:
    config = SimpleNamespace(attention_dropout=0.5, resid_pdrop=0.1, pad_token_id=3, hidden_size=8)
    still(config)
    assert vars(config) == {"attention_dropout": 0.0, "resid_pdrop": 0.0, "pad_token_id": None, "hidden_size": 8}
