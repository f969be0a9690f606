"""Models made where they will be are those that their classes make, with other random numbers."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu.models import fresh_backbone, same_hf_model
from benchmarks.gpu.parts import tiny_plan
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.types.tensors import TokenBatch

CONFIG = tiny_plan().sampled
CPU = torch.device("cpu")


def test_it_is_the_backbone_of_its_class_but_for_the_numbers():
    fresh, usual = fresh_backbone(CONFIG, CPU), DeepSeekBackbone(CONFIG)
    assert fresh.precision.compute == "bf16"
    assert fresh.cos.equal(usual.cos) and fresh.sin.equal(usual.sin)
    assert {n: p.shape for n, p in fresh.named_parameters()} == {n: p.shape for n, p in usual.named_parameters()}
    assert {n: b.shape for n, b in fresh.named_buffers()} == {n: b.shape for n, b in usual.named_buffers()}
    for name, parameter in fresh.named_parameters():
        if parameter.dim() == 1:
            assert bool((parameter == 1).all()), name
        else:  # 64 x 64 numbers and more: their spread is within a tenth of the true one
            assert parameter.std().item() == pytest.approx(CONFIG.init_std, rel=0.1), name
    assert not fresh.expert_bias().any()


def test_generates_model_has_the_same_logits():
    backbone = fresh_backbone(CONFIG, CPU)
    backbone.precision = DeepSeekBackbone(CONFIG).precision  # FP32: the comparison is exact to rounding
    model = same_hf_model(backbone, CPU).float()
    ids = torch.arange(1, 9)[None]
    batch = TokenBatch(ids, torch.arange(8)[None], torch.ones_like(ids))
    for parameter in backbone.parameters():  # the other side was rounded to BF16
        parameter.data = parameter.data.bfloat16().float()
    ours = backbone.unembed(backbone.eval().hidden(batch).hidden)
    theirs = model(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-6), (ours - theirs).abs().max()
