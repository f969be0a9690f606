"""Both kinds of network answer the same questions; their numbers are tested where they are counted."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.model.cost import MicroBatch, meta_backbone
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.run.cost.load import StepLoad
from r1_lightning.run.cost.networks import network_of, number_of
from tests.model.tiny import tiny
from tests.support.hf_folders import DENSE
from tests.support.memory import saved_bytes


def test_our_own() -> None:
    """Latents of 3 layers; a block's inputs are FP32."""
    config = tiny(n_layers=3)
    network = network_of(meta_backbone(config), "cpu")
    assert network.cache_name == "latent cache" and network.vocab_size == config.vocab_size
    kept = network.kept(MicroBatch(2, 32, 64, 0))
    assert 0 < kept.block < kept.blocks < kept.total and kept.block_inputs == 3 * 2 * 32 * config.d_model * 4
    assert network.cache(2, 10) == 2 * 10 * 3 * 4 * (config.kv_lora_rank + config.qk_rope_head_dim)


def test_a_model_of_transformers_by_hand() -> None:
    """2 layers x 2 key-value heads x 8 elements x keys and values in FP32: 256 bytes a token. FLOPs: 2 per weight and product."""
    with torch.device("meta"):
        backbone = HFBackbone(HFModelConfig({"model_type": "qwen2", **DENSE, "tie_word_embeddings": True}))
    network = network_of(backbone, "cpu")
    assert network.cache_name == "key-value cache" and network.vocab_size == 432
    assert network.cache(3, 10) == 3 * 10 * 256
    counts = network.parameters()
    body = counts.activated - counts.head
    assert network.forward_flops(StepLoad(100, 40, 20)) == 2 * (100 * (body + 20 * 2 * 2 * 32) + 40 * counts.head)
    sampling = StepLoad(0, 0, 0, prompts=2, group_size=4, prompt_tokens=10)
    read, drawn = 20 * (body + 5 * 128), 48 * (counts.activated + 13 * 128)
    assert network.sampling_flops(sampling, 6) == 2 * (read + drawn)
    assert number_of(backbone) == 4


def test_the_hidden_states_that_meet_the_head_are_counted() -> None:
    fields = {"model_type": "qwen2", **DENSE, "tie_word_embeddings": True}
    with torch.device("meta"):
        network = network_of(HFBackbone(HFModelConfig(fields), PlainPrecision("bf16")), "cpu")
    few, many = (network.kept(MicroBatch(2, 32, targets, 0)).total for targets in (0, 64))
    assert many - few == 64 * 32 * 4 and network.converted(False) > 0
    assert number_of(network.backbone) == 2


def test_blocks_of_our_own_are_what_they_keep() -> None:
    """A second block more keeps what `block_bytes` says of one, by the tensors that a real forward saves."""
    from r1_lightning.model.backbone import DeepSeekBackbone
    from r1_lightning.types.tensors import TokenBatch

    batch = TokenBatch.of_whole_rows(torch.zeros(2, 32, dtype=torch.long))
    saved = []
    for layers in (2, 3):
        model = DeepSeekBackbone(tiny(n_layers=layers, n_dense_layers=layers, mtp_depth=0))
        saved.append(saved_bytes(lambda model=model: model.hidden(batch, with_mtp=False), model.parameters()))
    config = tiny(n_layers=2, n_dense_layers=2, mtp_depth=0)
    block = network_of(meta_backbone(config), "cpu").kept(MicroBatch(2, 32, 0, 0)).block
    assert saved[1] - saved[0] == pytest.approx(block, rel=0.05)
