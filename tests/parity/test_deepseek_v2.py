"""Whole-model parity with HuggingFace's DeepseekV2ForCausalLM, whose router takes a softmax (V2-Lite's form)."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.model.config import YarnConfig
from tests.model.tiny import backbone, hf_twin, pack, random_documents, tiny

V2_YARN = YarnConfig(factor=4.0, original_max_positions=16, mscale=0.707, mscale_all_dim=0.707)
V2 = tiny(
    router_scoring="softmax", n_expert_groups=1, n_limited_groups=1, q_lora_rank=None, n_shared_experts=2, mtp_depth=0
)


@pytest.mark.parametrize("route_scale", [1.0, 16.0])
@pytest.mark.parametrize("yarn", [None, V2_YARN])
@torch.no_grad()
def test_logits_agree(route_scale: float, yarn: YarnConfig | None) -> None:
    config = tiny(**{**vars(V2), "route_scale": route_scale, "yarn": yarn})
    model = backbone(config)
    documents = random_documents((37, 5, 14), config.vocab_size, seed=1)
    batch = pack([documents])
    ours = model.unembed(model.hidden(batch).hidden)[batch.is_token]
    twin = hf_twin(model)
    expected = torch.cat([twin(torch.tensor([document])).logits[0] for document in documents])
    assert expected.std() > 0.5
    assert (ours - expected).abs().max() <= 1e-5
    assert type(twin).__name__ == "DeepseekV2ForCausalLM"


def test_no_bias_steers_it() -> None:
    model = backbone(V2)
    assert not any("expert_bias" in name for name in model.state_dict())
    assert model.expert_bias().numel() == 0
