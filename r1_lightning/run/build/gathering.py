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

from r1_lightning.model.sharding import shard
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.run.build.device import mesh_of


@contextmanager
def held_to_sample(backbone: Any, config: DictConfig) -> Iterator[Any]:
    """Give `backbone` whole and in evaluation mode inside the block; all processes of the run open it together.

    With `trainer=fsdp` it is divided over the processes first, in place, and what is given is a copy; else it is `backbone` itself.
    """
    mesh = mesh_of(config)
    if mesh is not None and isinstance(backbone, nn.Module):
        shard(backbone, mesh)  # unless it was made in shares
    with whole_model(backbone) as whole:
        yield whole
