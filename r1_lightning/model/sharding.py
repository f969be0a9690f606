"""Shards a backbone over processes by rows of its weights, block by block: torch's `fully_shard` (FSDP2; ZeRO stage 3).

Each of W processes holds 1 / W of every weight, of its gradient and of its optimizer state. A block's weights are gathered just
before its forward and its backward, and freed after each; so beside its shares a process holds one or two blocks whole, and
embedding, final norm and head (the "root"), which stay whole from the forward to the end of the backward.

What `fully_shard` does not know by itself:

- **Other methods than forward.** Stages call `hidden`, `step`, `scores`, and blocks' `step`; these gather as a forward does.
  `token_logprobs` and `unembed` read the head: they gather the root, and the end of the backward frees it. As forwards of the root
  they would end its gradient with the head's, before the embedding's is there.
  Without gradients they free it themselves, because an optimizer's step would make it stale; but the root of a frozen model stays
  (a teacher's `unembed` is called as often as a process has tokens, which must gather nothing).
- **Gradients** are means over processes, as those of DDP. The losses of processes add up to that of a step (their denominators
  count all rows), so a stage multiplies its loss by the number of processes, as `StageModule.backward` does.
- **Buffers** (experts' biases, rotary tables) are whole in every process and equal, because all write the same values.
- **Types.** Sharded weights are FP32 masters, and gradients are added up in FP32. With BF16 compute a block's weights travel and
  multiply in BF16, which are the numbers that autocast would make of them; but autocast would also keep those copies of all blocks
  until the backward. What autocast leaves in FP32 (norms, routers, convolutions) is gathered as FP32, in a group of its own.

A model may be made in shares from the first: `without_weights` makes its parts, `shard` divides them, `give_memory` allocates the
shares, and whoever knows the weights fills them (`run/build/models.py`). No process ever holds the model whole.

Decoding would gather all blocks for every token: `model/whole_copy.py` gathers them once per rollout. Every process makes the same
calls, or the others wait: each call of these methods, `save_weights` and a whole copy gathers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from r1_lightning.functional.shards import is_sharded, local, whole
from r1_lightning.model.block import Block
from r1_lightning.model.hf_model import HFBackbone
from r1_lightning.model.mtp import MTPModule
from r1_lightning.model.precision import weights_cast_by_autocast
from r1_lightning.model.whole_copy import COPY, WholeCopy

FORWARDS = ("hidden", "step", "step_mtp", "scores")  # of a root; `step` is also that of blocks
HEAD_READERS = ("unembed", "token_logprobs", "likeliest_tokens")


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Shard `module` (a backbone, or a reward model with one) in place over the one dimension of `mesh`.

    All processes of the mesh call it with equal weights, or on the meta device. Its parameters become DTensors: make optimizers
    afterwards. A module that is sharded already stays as it is, and so does a part of it (a reward model's backbone).
    """
    if is_sharded_module(module):
        return
    compute = _compute_type(module)
    setattr(module, COPY, WholeCopy(module, compute))
    masters = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in [block for block in blocks_of(module) if not is_sharded_module(block)]:
        policy = masters
        if compute != torch.float32:
            kept = _kept_in_fp32(block)
            if kept:
                fully_shard(kept, mesh=mesh, mp_policy=masters)
            policy = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
        fully_shard(block, mesh=mesh, mp_policy=policy)
        _register(block, ("step",))
    root_weight = _a_root_weight(module)
    fully_shard(module, mesh=mesh, mp_policy=masters)
    _register(module, FORWARDS)
    for name in HEAD_READERS:
        _gathering_the_root(module, name)
    for name in (*FORWARDS, *HEAD_READERS):
        _freeing_the_root(module, name, root_weight)
    for part in module.modules():
        if isinstance(part, FSDPModule) and mesh.device_type == "cpu":
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no mean


@contextmanager
def without_weights() -> Iterator[None]:
    """Make modules inside without memory for their weights, which are on the meta device; buffers are made as ever.

    A weight has memory, untouched, until its module takes it.
    """

    def put(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None  # as it is: a weight that two places share stays one
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(put)  # type: ignore[arg-type]  # its type lacks the documented result
    try:
        yield
    finally:
        hook.remove()


def give_memory(module: nn.Module, device: torch.device) -> None:
    """Allocate, on `device`, what this process holds of the weights of `module`, which are on the meta device; fill it next."""
    module._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device))


@torch.no_grad()
def fill_copy(copied: nn.Module, module: nn.Module, device: torch.device | None) -> None:
    """Fill `copied`, without weights, from the sharded `module`: in shares as that is, or whole on a `device` of its own.

    All processes call it together.
    """
    mesh = next(p.device_mesh for p in module.parameters() if isinstance(p, DTensor))
    if device is None:
        shard(copied, mesh)
    give_memory(copied, device or next(local(p).device for p in module.parameters()))
    for name, parameter in copied.named_parameters():
        values = module.get_parameter(name)
        local(parameter).copy_(local(values) if device is None else whole(values))


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of `module` that are gathered and freed as one: blocks, and MTP modules with their block.

    Of a model of `transformers` these are its decoder's layers.
    """
    for part in module.modules():
        if isinstance(part, MTPModule):
            yield part
        elif isinstance(part, HFBackbone):
            yield from decoder_layers(part.decoder)
    inner = {id(part.block) for part in module.modules() if isinstance(part, MTPModule)}
    for part in module.modules():
        if isinstance(part, Block) and id(part) not in inner:
            yield part


def decoder_layers(decoder: nn.Module) -> list[nn.Module]:
    """Return the layers of a decoder of `transformers`: the longest list of modules in it."""
    lists = [part for part in decoder.modules() if isinstance(part, nn.ModuleList)]
    return list(max(lists, key=len, default=()))


def is_sharded_module(module: Any) -> bool:
    """True if `shard` was called with `module`."""
    return isinstance(module, FSDPModule)


def _compute_type(module: nn.Module) -> torch.dtype:
    for part in module.modules():
        if getattr(getattr(part, "precision", None), "compute", None) == "bf16":
            return torch.bfloat16
    return torch.float32


def _kept_in_fp32(block: nn.Module) -> list[nn.Module]:
    """Return the parts of `block` whose own weights autocast leaves in FP32."""
    cast = {id(parameter) for parameter in weights_cast_by_autocast(block)}
    own = ((part, list(part.parameters(recurse=False))) for part in block.modules())
    return [part for part, weights in own if weights and not any(id(weight) in cast for weight in weights)]


def _register(module: nn.Module, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def _a_root_weight(module: nn.Module) -> Callable[[], nn.Parameter]:
    """Return a function that looks up one weight of `module` outside of its blocks, as it is now: sharded or gathered."""
    inside = {id(parameter) for block in blocks_of(module) for parameter in block.parameters()}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if id(parameter) not in inside:
                return functools.partial(part.get_parameter, name)
    raise ValueError(f"{type(module).__name__} has no weights outside of its blocks")


def _gathering_the_root(module: nn.Module, name: str) -> None:
    """Let the method `name`, if there is one, gather the root's weights first."""
    if (method := getattr(module, name, None)) is None:
        return

    @functools.wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        assert isinstance(module, FSDPModule)
        module.unshard()
        return method(*arguments, **keywords)

    setattr(module, name, call)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _freeing_the_root(module: nn.Module, name: str, root_weight: Callable[[], nn.Parameter]) -> None:
    """Let the method `name`, called without gradients, leave the root as it was: no backward will free it."""
    if (method := getattr(module, name, None)) is None:
        return

    @functools.wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        was_sharded = is_sharded(root_weight())
        try:
            return method(*arguments, **keywords)
        finally:
            if was_sharded and not torch.is_grad_enabled() and _trains(module):
                assert isinstance(module, FSDPModule)
                module.reshard()

    setattr(module, name, call)
