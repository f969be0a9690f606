"""What PPO's value model adds to the cost of a stage: a second network that is held, asked once per rollout, and trained.

It is a copy of the policy with a scalar in place of logits, so it costs what the policy costs without its head. Its values are
asked in parts of the size of a micro-batch, without gradients, which takes less than the update does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from r1_lightning.model import cost
from r1_lightning.model.cost import MicroBatch
from r1_lightning.run.cost.load import StepLoad
from r1_lightning.run.cost.networks import Network
from r1_lightning.run.cost.sampling_cost import Memory, Work
from r1_lightning.stages.muon import state_bytes

VALUE_MODEL = "value model"


def weights_and_moments(critic: Any, optim: Any) -> tuple[int, int]:
    """Bytes of the value model, and of its moments; 0 of each without one."""
    if critic is None:
        return 0, 0
    return cost.tensor_bytes(critic), state_bytes(optim.build(critic), _idle(critic))


def lasting(critic: Any, optim: Any) -> list[Memory]:
    """Return the memory that lasts from the first step to the last; empty without a value model."""
    if critic is None:
        return []
    weights, moments = weights_and_moments(critic, optim)
    idle = {id(parameter) for parameter in _idle(critic)}
    trained = [p for p in critic.parameters() if p.requires_grad and id(p) not in idle]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    return [Memory(VALUE_MODEL, weights + gradients + moments, "weights, gradients, moments")]


def _idle(critic: Any) -> list[Any]:
    """Return what the values do not go through: MTP modules, and an output head that is not the embedding."""
    backbone = critic.backbone
    modules = getattr(backbone, "mtp_modules", [])
    embedding = getattr(getattr(backbone, "embedding", None), "weight", None)
    unused = [p for part in modules for p in part.parameters()]
    return unused if backbone.head.weight is embedding else [*unused, backbone.head.weight]


def update(critic: Any, network: Network, batch: MicroBatch, recomputes: bool) -> list[Memory]:
    """Return the memory that the value model's forward and backward of a micro-batch add to the policy's."""
    if critic is None:
        return []
    kept = network.kept(replace(batch, mtp_depth=0))
    return [
        Memory(
            "activations, value model",
            kept.recomputed - kept.block if recomputes else kept.total,
            "beside the policy's",
        ),
        Memory("value model in BF16", network.converted(False), "made for every forward"),
    ]


def work(critic: Any, network: Network, load: StepLoad) -> list[Work]:
    """Return tokens and FLOPs of an optimizer step: values of all states once per rollout, and the update."""
    if critic is None:
        return []
    forward = network.forward_flops(replace(load, targets=0))
    return [
        Work("values", load.tokens, forward),
        Work("value model's update", load.tokens, forward * cost.TRAINING_FLOPS / cost.FORWARD_FLOPS),
    ]
