"""Bytes of a loss, against its tensors."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch

from r1_lightning.functional.distillation import Distillation, ForwardKL, FullTeacher, GeneralisedJS, StudentTokens
from r1_lightning.model.cost import MicroBatch
from r1_lightning.run.cost.logits import LOGITS, has_logits, logit_bytes
from r1_lightning.stages.distill import DistillModule
from r1_lightning.stages.reward_model import RewardModelModule
from r1_lightning.stages.sft import SFTModule
from tests.support.memory import LiveTensors
from tests.support.miniature import Miniature

N, V, D = 256, 500, 8


@pytest.mark.parametrize("divergence", [ForwardKL(), GeneralisedJS()])
def test_a_distillation(divergence: Any) -> None:
    tensors = [torch.randn(shape) for shape in ((N, D), (V, D), (N, D), (V, D))]
    hidden, head, theirs, their_head = tensors
    hidden.requires_grad_(), head.requires_grad_()
    student = StudentTokens(hidden, torch.zeros(N, dtype=torch.long), lambda x: x @ head.T, V, N)
    with LiveTensors(tensors) as live:
        Distillation(divergence)(student, FullTeacher(theirs, lambda x: x @ their_head.T)).loss.backward()
    said = LOGITS[DistillModule](
        Namespace(objective=Namespace(divergence=divergence)), network(), MicroBatch(2, 256, N, 0)
    )
    assert said == pytest.approx(live.peak, rel=0.1)


def network() -> Any:
    backbone = Namespace(head=torch.nn.Linear(D, V, bias=False))
    return Namespace(vocab_size=V, backbone=backbone, device_type="cpu")


def test_the_heads_gradient_is_added_from_the_second_micro_batch_on() -> None:
    module, batch = object(), MicroBatch(1, 10, 10, 0)
    once, twice = (logit_bytes(module, network(), batch, parts) for parts in (1, 2))
    assert once == 3 * 4 * 10 * V and twice - once == 4 * D * V  # three tiles


def test_a_reward_model_has_no_logits_and_fine_tuning_those_of_other_stages() -> None:
    """Fine-tuning counts right tokens, too, but tile by tile."""
    batch = MicroBatch(1, 10, 10, 0)
    assert LOGITS[RewardModelModule](None, network(), batch) == 0 and SFTModule not in LOGITS
    assert not has_logits(Miniature().reward_model()) and has_logits(Miniature().dpo())
