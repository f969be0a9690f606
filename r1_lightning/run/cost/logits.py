"""The memory of a stage's loss: tables of tokens x vocabulary, by the class of the stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from r1_lightning.functional.distillation import CHUNK_LOGITS, GeneralisedJS
from r1_lightning.model import cost
from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.precision import FP32
from r1_lightning.run.config.declarations import line_of
from r1_lightning.run.cost.networks import Network
from r1_lightning.stages.distill import DistillModule
from r1_lightning.stages.reward_model import RewardModelModule

# Tables of a chunk alive at once in a distillation's backward, which computes the chunk again (logits, log-softmax and gradients of
# student and teacher, and the divergence's terms): measured by `tests/run/cost/test_logits.py`.
DISTILL_TABLES = 6
MIXTURE_TABLES = 10  # with a mixture of both, compared in full


def _tiles(module: Any, network: Network, batch: MicroBatch) -> int:
    return cost.logit_bytes(network.vocab_size, batch, network.device_type)


def _chunks(module: Any, network: Network, batch: MicroBatch) -> int:
    is_mixture = isinstance(module.objective.divergence, GeneralisedJS)
    tokens = min(batch.targets, max(1, CHUNK_LOGITS // network.vocab_size))
    return (MIXTURE_TABLES if is_mixture else DISTILL_TABLES) * FP32 * tokens * network.vocab_size


def _none(module: Any, network: Network, batch: MicroBatch) -> int:
    return 0


LOGITS: dict[type, Callable[[Any, Network, MicroBatch], int]] = {
    DistillModule: _chunks,
    RewardModelModule: _none,
}


def has_logits(module: Any) -> bool:
    """False for a stage that reads a score in place of the vocabulary's."""
    return line_of(LOGITS, type(module)) is not _none


def logit_bytes(module: Any, network: Network, batch: MicroBatch, micro_batches: int) -> int:
    """Peak bytes of a micro-batch's logits, gradients included; with several micro-batches the head's gradient is added to one."""
    counted = line_of(LOGITS, type(module)) or _tiles
    head = network.backbone.head.weight
    is_added = micro_batches > 1 and counted is not _none and head.requires_grad
    return counted(module, network, batch) + is_added * head.numel() * FP32
