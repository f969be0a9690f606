"""Resume checkpoints of a sharded stage: its weights and moments beside the checkpoint, in one file per process.

    checkpoints/last.ckpt          what is small or whole in every process; cites the folder of its step, its files and their hashes
    checkpoints/shards-40/         `artefacts.shard_files`: the rows that each process held at step 40

The number of processes may change between attempts, and so may the strategy: a process fills what it now holds, whole tensors or
other rows, from a checkpoint of either kind. The folders of the last two checkpoints are kept, as these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.artefacts.shard_files import ASIDE, Aside, Citation, check_shards, load_shards
from r1_lightning.artefacts.tensor_file import TYPES
from r1_lightning.functional.shards import fill, is_sharded
from r1_lightning.types.processes import Processes

CITATION = "shards"  # key in a checkpoint
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")  # of the optimizers here: as large as their parameter
WEIGHTS, OPTIMIZERS = "state_dict", "optimizer_states"  # Lightning's keys


def put_aside(checkpoint: dict[str, Any], folder: Path, processes: Processes) -> None:
    """Take the sharded tensors, if there are any, out of `checkpoint` and write them to `folder`; all processes together.

    If the checkpoint has the key `ASIDE`, they are left there as an `Aside` instead, for a writer that comes later.
    """
    tensors: dict[str, Tensor] = {}
    for optimizer in checkpoint.get(OPTIMIZERS, ()):  # the inner dictionaries are the optimizer's own
        optimizer["state"] = {parameter: dict(moments) for parameter, moments in optimizer["state"].items()}
    for name, holder, key in list(_places(checkpoint)):
        if is_sharded(holder[key]):
            tensors[name] = holder.pop(key)
    if not tensors:
        return
    aside = Aside.of(tensors, folder, int(checkpoint["global_step"]))
    if ASIDE in checkpoint:
        checkpoint[ASIDE] = aside
    else:
        checkpoint[CITATION] = aside.written(processes)


def put_back(
    checkpoint: dict[str, Any],
    folder: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    processes: Processes,
) -> None:
    """Fill `checkpoint` with what this process holds of each tensor: from its shards, or from its whole tensors.

    `module` and `optimizers` say which tensors are sharded now. Raises `InvalidInput` if a file is missing or damaged.
    """
    held = _held(module, optimizers)
    cited: Citation | None = checkpoint.get(CITATION)
    if cited is not None:
        place = folder / Path(cited["folder"]).name
        check_shards(place, cited["files"], processes)
        wanted = {name: _empty(held.get(name), *described) for name, described in cited["tensors"].items()}
        load_shards(wanted, place, cited["files"])
        for name, tensor in wanted.items():
            _insert(checkpoint, name, tensor)
    for name, holder, key in _places(checkpoint):
        value, like = holder[key], held.get(name)
        if isinstance(value, Tensor) and like is not None and is_sharded(like) and not is_sharded(value):
            holder[key] = torch.empty_like(like, dtype=value.dtype)
            fill(holder[key], value)


def _places(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, dict[Any, Any], Any]]:
    """Yield a name for each tensor of weights and moments, the dictionary that holds it, and its key there."""
    for key in list(checkpoint[WEIGHTS]):
        yield f"{WEIGHTS}/{key}", checkpoint[WEIGHTS], key
    for number, optimizer in enumerate(checkpoint.get(OPTIMIZERS, ())):
        for parameter, moments in optimizer["state"].items():
            for key in list(moments):
                yield f"{OPTIMIZERS}/{number}/{parameter}/{key}", moments, key


def _insert(checkpoint: dict[str, Any], name: str, tensor: Tensor) -> None:
    kind, _, rest = name.partition("/")
    if kind == WEIGHTS:
        checkpoint[WEIGHTS][rest] = tensor
    else:
        number, parameter, key = rest.split("/")
        checkpoint[OPTIMIZERS][int(number)]["state"].setdefault(int(parameter), {})[key] = tensor


def _held(module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return, by the names of `_places`, a tensor that is divided as that one is; of moments, the parameter."""
    held = {f"{WEIGHTS}/{name}": tensor for name, tensor in module.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            held.update({f"{OPTIMIZERS}/{number}/{index}/{key}": parameter for key in MOMENTS})
    return held


def _empty(like: Tensor | None, dtype: str, shape: list[int]) -> Tensor:
    kind = next(known for known, name in TYPES.items() if name == dtype)
    if like is not None and is_sharded(like) and list(like.shape) == shape:
        return torch.empty_like(like, dtype=kind)
    return torch.empty(shape, dtype=kind)
