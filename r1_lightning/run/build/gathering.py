"""A model that a stage only samples from (`stage=sample`, `stage=compare`), and with `trainer=fsdp` one whole copy of its shares.

Nothing is trained there, so there are no gradients and no optimizer state to divide. But whole FP32 weights in every process would
be twice what GRPO holds to sample from the same model in BF16. So the model is held as a policy in training is: each process keeps
its share of every weight, and all of them together gather a whole copy in the compute type (`model/whole_copy.py`), once for all
that the stage does with that model. From then on each process samples at its own pace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.model.sharding import is_sharded_module, shard
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.run.build.device import stage_device
from r1_lightning.run.config.place import FSDP, place_of


@contextmanager
def held_to_sample(backbone: Any, config: DictConfig) -> Iterator[Any]:
    """Give `backbone` whole and in evaluation mode inside the block; all processes of the run open it together.

    With `trainer=fsdp` it is divided over the processes first, in place, and what is given is a copy; else it is `backbone` itself.
    """
    place = place_of(config.trainer)
    is_divided = place.count > 1 and config.trainer.get("strategy") == FSDP
    if is_divided and isinstance(backbone, nn.Module) and not is_sharded_module(backbone):
        shard(backbone, init_device_mesh(stage_device(config).type, (place.count,)))
    with whole_model(backbone) as whole:
        yield whole
