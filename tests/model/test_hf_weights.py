"""HuggingFace's names of weights: there and back, where each piece goes, and what is missing or unknown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_weights import hf_views, is_left_out, state_to_hf, stored_mtp_depth
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import TINY, backbone, hf_twin, tiny
from tests.parity.configurations import configurations, label


def state_from_hf(
    stored: Mapping[str, Tensor], config: ModelConfig, with_mtp: bool, stacked: bool
) -> dict[str, Tensor]:
    """Fill the views of a state of zeros with what is stored."""
    empty = DeepSeekBackbone(config)
    for parameter in empty.parameters():
        torch.nn.init.zeros_(parameter)
    state = empty.state_dict()
    for name, views in hf_views(state, config, with_mtp, stacked).items():
        for view, part in zip(views, stored[name].chunk(len(views), -1), strict=True):
            view.copy_(part)
    return state


@pytest.mark.parametrize("config", configurations(), ids=label)
@pytest.mark.parametrize("with_mtp", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_state_there_and_back_is_the_same_bits(config, with_mtp, stacked):
    state = backbone(config).state_dict()
    back = state_from_hf(state_to_hf(state, config, with_mtp, stacked), config, with_mtp, stacked)
    kept = {name for name in state if with_mtp or not name.startswith("mtp_modules.")}
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) == (name in kept) for name in state)


def test_state_of_huggingface_there_and_back():
    twin = hf_twin(backbone())
    state = twin.state_dict()
    back = state_to_hf(state_from_hf(state, TINY, False, True), TINY)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_where_each_piece_goes():
    state = backbone().state_dict()
    converted = state_to_hf(state, TINY, with_mtp=True)
    dense = state["blocks.0.feed_forward.gate_up.weight"]  # gate first
    assert torch.equal(converted["model.layers.0.mlp.gate_proj.weight"], dense[:40])
    assert torch.equal(converted["model.layers.0.mlp.up_proj.weight"], dense[40:])
    experts = state["blocks.1.feed_forward.experts.gate_up.weight"]
    assert torch.equal(converted["model.layers.1.mlp.experts.gate_up_proj"][5], experts[5].T)
    bias = state["blocks.1.feed_forward.router.expert_bias"]
    assert torch.equal(converted["model.layers.1.mlp.gate.e_score_correction_bias"], bias)
    combine = state["mtp_modules.0.combine.weight"]  # [hidden; embedding] becomes [embedding; hidden]
    assert torch.equal(converted["model.layers.2.eh_proj.weight"][:, :32], combine[:, 32:])
    assert torch.equal(converted["model.layers.2.eh_proj.weight"][:, 32:], combine[:, :32])


def test_experts_apart_are_what_transformers_writes_to_disk(tmp_path):
    """Same names, same bits as `save_pretrained`, which splits the fused experts with code of its own."""
    model = backbone()
    hf_twin(model).save_pretrained(tmp_path)
    written = {name: tensor for path in tmp_path.glob("*.safetensors") for name, tensor in load_file(path).items()}
    apart = state_to_hf(model.state_dict(), TINY, stacked=False)
    assert apart.keys() == written.keys()
    assert all(torch.equal(apart[name], written[name]) for name in written)


def test_what_may_be_passed_over():
    tied, config = tiny(tie_embeddings=True), TINY  # two layers: the MTP module lies in the third
    assert is_left_out("lm_head.weight", tied, True) and not is_left_out("lm_head.weight", config, True)
    assert is_left_out("model.layers.0.self_attn.rotary_emb.inv_freq", config, True)
    assert is_left_out("model.layers.2.embed_tokens.weight", config, True)  # DeepSeek's files repeat the embedding
    assert is_left_out("model.layers.2.shared_head.head.weight", config, True)
    assert is_left_out("model.layers.2.eh_proj.weight", config, False)
    assert not is_left_out("model.layers.2.eh_proj.weight", config, True)
    assert not is_left_out("model.layers.1.embed_tokens.weight", config, True)


def test_mtp_modules_are_counted_among_the_names():
    names = state_to_hf(backbone().state_dict(), TINY, with_mtp=True)
    assert stored_mtp_depth(iter(names), 2) == 1
    assert stored_mtp_depth(iter(state_to_hf(backbone().state_dict(), TINY)), 2) == 0


def test_missing_and_unknown_tensors_are_named():
    state = backbone().state_dict()
    name = sorted(state)[0]
    with pytest.raises(InvalidInput, match=f"state=.*{name}.* lacks 1 tensors"):
        state_to_hf({key: value for key, value in state.items() if key != name}, TINY)
    with pytest.raises(InvalidInput, match=r"state=.*stranger.* 1 tensors belong nowhere"):
        state_to_hf({**state, "stranger": torch.ones(1)}, TINY)
