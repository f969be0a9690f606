"""HuggingFace's names of weights: there and back, where each piece goes, and what is missing or unknown."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from r1_lightning.model.hf_weights import state_from_hf, state_to_hf, unfused_experts
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import TINY, backbone, hf_twin, tiny
from tests.parity.configurations import configurations, label


@pytest.mark.parametrize("config", configurations(), ids=label)
@pytest.mark.parametrize("with_mtp", [False, True])
def test_state_there_and_back_is_the_same_bits(config, with_mtp):
    state = backbone(config).state_dict()
    back = state_from_hf(state_to_hf(state, config, with_mtp), config, with_mtp)
    kept = {name for name in state if with_mtp or not name.startswith("mtp_modules.")}
    assert back.keys() == kept
    assert all(torch.equal(back[name], state[name]) for name in kept)
    assert all(tensor.is_contiguous() for tensor in back.values())


def test_state_of_huggingface_there_and_back():
    twin = hf_twin(backbone())
    state = twin.state_dict()
    back = state_to_hf(state_from_hf(state, TINY), TINY)
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
    apart = unfused_experts(state_to_hf(model.state_dict(), TINY))
    assert apart.keys() == written.keys()
    assert all(torch.equal(apart[name], written[name]) for name in written)


def test_experts_apart_by_hand():
    """2 experts, inner width 1, model width 2: gate first, then up; the other tensors and their order stay."""
    fused = {
        "a.weight": torch.zeros(1),
        "m.experts.gate_up_proj": torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]),
        "m.experts.down_proj": torch.tensor([[[9.0], [10.0]], [[11.0], [12.0]]]),
        "z.weight": torch.ones(1),
    }
    apart = {name: tensor.tolist() for name, tensor in unfused_experts(fused).items()}
    assert list(apart.items()) == [
        ("a.weight", [0.0]),
        ("m.experts.0.gate_proj.weight", [[1.0, 2.0]]),
        ("m.experts.0.up_proj.weight", [[3.0, 4.0]]),
        ("m.experts.1.gate_proj.weight", [[5.0, 6.0]]),
        ("m.experts.1.up_proj.weight", [[7.0, 8.0]]),
        ("m.experts.0.down_proj.weight", [[9.0], [10.0]]),
        ("m.experts.1.down_proj.weight", [[11.0], [12.0]]),
        ("z.weight", [1.0]),
    ]


def test_a_tied_head_may_be_absent():
    config = tiny(tie_embeddings=True)
    state = backbone(config).state_dict()
    published = state_to_hf(state, config)
    del published["lm_head.weight"]
    assert torch.equal(state_from_hf(published, config)["head.weight"], state["embedding.weight"])
    with pytest.raises(InvalidInput, match=r"lm_head\.weight"):
        state_from_hf(published, tiny())


def test_mtp_layers_are_passed_over_unless_wanted():
    state = backbone().state_dict()
    published = state_to_hf(state, TINY, with_mtp=True)
    published["model.layers.2.embed_tokens.weight"] = state["embedding.weight"]  # DeepSeek's file repeats them
    published["model.layers.2.shared_head.head.weight"] = state["head.weight"]
    assert state_from_hf(published, TINY).keys() == {name for name in state if not name.startswith("mtp_modules.")}
    assert state_from_hf(published, TINY, with_mtp=True).keys() == state.keys()


@pytest.mark.parametrize("direction", [state_to_hf, state_from_hf])
def test_missing_and_unknown_tensors_are_named(direction):
    state = backbone().state_dict()
    if direction is state_from_hf:
        state = state_to_hf(state, TINY)
    name = sorted(state)[0]
    with pytest.raises(InvalidInput, match=f"state=.*{name}.* lacks 1 tensors"):
        direction({key: value for key, value in state.items() if key != name}, TINY)
    with pytest.raises(InvalidInput, match=r"state=.*weight_scale_inv.* 1 tensors belong nowhere"):
        direction({**state, "model.layers.0.self_attn.o_proj.weight_scale_inv": torch.ones(1)}, TINY)
