"""The memory of a model of `transformers`, by rehearsal: its own code runs on tensors without values, and their bytes are counted.

The families of `transformers` have too many forms for formulas. So the forward runs on `FakeTensor`s of torch: shapes, types and
autograd are those of the CPU, but no number is stored, and the largest model takes a second. `tests/model/test_hf_cost.py` compares
the counts with those of real tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from r1_lightning.model.cost import Parameters
from r1_lightning.model.hf_attention import ROWS
from r1_lightning.model.hf_model import HFBackbone
from r1_lightning.model.masked_attention import DocumentRows, is_dense
from r1_lightning.model.precision import BF16, FP32, in_compute_type

# Shape legend: B rows, T new positions, S positions in all.

RECOMPUTES = "gradient_checkpointing"  # with this attribute `transformers` computes layers again, and in training drops the cache


class Kept(NamedTuple):
    """Bytes that a training forward keeps for the backward: `total`, of it the largest `block` and all `blocks`; their inputs."""

    total: int
    block: int
    blocks: int
    block_inputs: int

    @property
    def recomputed(self) -> int:
        """What is kept if every block is computed again in the backward: the blocks' inputs, and one block at a time."""
        return self.total - self.blocks + self.block + self.block_inputs


class LiveBytes(TorchDispatchMode):
    """`peak` is the most bytes of storages made inside that were alive at one time; those in `known` are left out."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known = known
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: Any) -> None:
        place = storage._cdata
        if place not in self.alive and place not in self.known:
            self.alive[place] = storage.nbytes()
            self.now += self.alive[place]
            weakref.finalize(storage, self._drop, place)

    def _drop(self, place: int) -> None:
        self.now -= self.alive.pop(place, 0)


@dataclass
class _Saved:
    """Counts what is saved for the backward, once per storage, without the storages in `known`."""

    known: set[int]
    storages: dict[int, Any] = field(default_factory=dict)
    total: int = 0

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known and storage._cdata not in self.storages:
            self.storages[storage._cdata] = storage  # held, so that its address is not given to another
            self.total += storage.nbytes()
        return tensor


class _Stage:
    """The decoder of a backbone on the meta device, with weights that are fake tensors of the CPU."""

    def __init__(self, backbone: HFBackbone) -> None:
        self.decoder, self.precision = backbone.decoder, backbone.precision
        self.mode = FakeTensorMode()
        named = [*self.decoder.named_parameters(), *self.decoder.named_buffers()]
        self.state = {name: self._fake(tensor) for name, tensor in named}
        self.known = {tensor.untyped_storage()._cdata for tensor in self.state.values()}

    def _fake(self, tensor: Tensor) -> Tensor:
        meta = tensor.detach().to("meta").requires_grad_(tensor.requires_grad)
        return FakeTensor(self.mode, meta, torch.device("cpu"))

    @contextmanager
    def playing(self, trains: bool = False) -> Iterator[None]:
        """Run what is inside on fake tensors. No block is recomputed: `Kept.recomputed` is what that would keep."""
        modes = [(part, part.training, getattr(part, RECOMPUTES, None)) for part in self.decoder.modules()]
        try:
            for part, _, recomputes in modes:
                part.training = trains
                if recomputes:
                    setattr(part, RECOMPUTES, False)
            with self.mode, self.precision.autocast("cpu"):
                yield
        finally:
            for part, training, recomputes in modes:
                part.training = training
                if recomputes:
                    setattr(part, RECOMPUTES, True)

    def __call__(self, rows: int, tokens: int, mask: Tensor, cache: Any = None) -> Any:
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        keywords = {"input_ids": ids, "attention_mask": mask, "position_ids": ids, "use_cache": cache is not None}
        if cache is not None:
            keywords["past_key_values"] = cache
        return torch.func.functional_call(self.decoder, self.state, (), keywords).last_hidden_state


def kept_bytes(backbone: HFBackbone, rows: int, tokens: int, device_type: str = "cpu") -> Kept:
    """Rehearse a training forward of packed rows B x T on a backbone of the meta device.

    On a GPU in BF16 one kernel takes all documents; else short rows have a mask B x T x T, and long ones a kernel per document.
    """
    stage = _Stage(backbone)
    saved = _Saved(stage.known)
    blocks, inputs, started = [0], [0], [0]

    def before(_: nn.Module, arguments: Any, keywords: Any) -> None:
        started[0] = saved.total
        found = next(x for x in tree_leaves((arguments, keywords)) if isinstance(x, Tensor) and x.is_floating_point())
        inputs.append(found.numel() * found.element_size())

    def after(*_: Any) -> None:
        blocks.append(saved.total - started[0])

    hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in _blocks(stage.decoder)]
    hooks += [block.register_forward_hook(after) for block in _blocks(stage.decoder)]
    try:
        with stage.playing(trains=True):
            mask = _mask(backbone, rows, tokens, device_type)
            with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
                stage(rows, tokens, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return Kept(saved.total, max(blocks), sum(blocks), sum(inputs))


def passing_bytes(backbone: HFBackbone, rows: int, tokens: int, device_type: str = "cpu") -> int:
    """Bytes alive at once in a forward without gradients, the mask included."""
    stage = _Stage(backbone)
    with stage.playing(), torch.no_grad(), LiveBytes(stage.known) as live:
        stage(rows, tokens, _mask(backbone, rows, tokens, device_type))
    return live.peak


def cache_bytes(backbone: HFBackbone, rows: int, tokens: int) -> int:
    """Bytes of the keys and values of `tokens` positions."""
    return rows * tokens * sum(layer.keys.nbytes + layer.values.nbytes for layer in _first_column(_Stage(backbone)))


def decoding_bytes(backbone: HFBackbone, rows: int, tokens: int) -> int:
    """Bytes alive at once in a decoding step that ends with `tokens` cached positions, keys and values included."""
    from transformers import DynamicCache

    stage = _Stage(backbone)
    first = _first_column(stage)
    with stage.playing(), torch.no_grad(), LiveBytes(stage.known) as live:
        cache = DynamicCache()
        for number, layer in enumerate(first):
            shapes = [(rows, part.shape[1], tokens - 1, part.shape[3]) for part in (layer.keys, layer.values)]
            cache.update(*(torch.zeros(shape, dtype=layer.keys.dtype) for shape in shapes), number)
        stage(rows, 1, torch.zeros(rows, 1, 1, tokens, dtype=_compute_type(backbone)), cache)
    return live.peak


def prefill_bytes(backbone: HFBackbone, prompts: int, tokens: int) -> int:
    """Bytes alive at once while `prompts` rows of `tokens` are read into an empty cache, keys and values included."""
    from transformers import DynamicCache

    stage = _Stage(backbone)
    with stage.playing(), torch.no_grad(), LiveBytes(stage.known) as live:
        mask = _mask(backbone, prompts, tokens, "cpu")
        attend = (
            torch.ones(mask.shape, dtype=torch.bool) if mask.is_floating_point() else None
        )  # a mask is made from it
        stage(prompts, tokens, mask, DynamicCache())
        del attend
    return live.peak


def count_parameters(backbone: HFBackbone) -> Parameters:
    """Count the weights as `cost.count_parameters` does; stacked experts (three dimensions) by the share that a token chooses."""
    embedding, head = backbone.model.get_input_embeddings().weight, backbone.head.weight
    chosen = getattr(backbone.model.config, "num_experts_per_tok", None) or 1
    body = [p for p in backbone.parameters() if p is not embedding and p is not head]
    activated = sum(p.numel() * chosen // len(p) if p.dim() == 3 else p.numel() for p in body if p.dim() > 1)
    return Parameters(
        total=sum(p.numel() for p in backbone.parameters()),
        embeddings=embedding.numel() + (0 if head is embedding else head.numel()),
        head=head.numel(),
        mtp=0,
        activated=activated + head.numel(),
        mtp_activated=0,
        norms=sum(p.numel() for p in body if p.dim() == 1),
    )


def attention_products(backbone: HFBackbone) -> float:
    """Multiplications per token and token of its context, in all layers: two per element of the queries."""
    config = backbone.model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2.0 * config.num_hidden_layers * config.num_attention_heads * head


def converted_weight_bytes(backbone: HFBackbone, is_decoding: bool = False) -> int:
    """Bytes of the head's copy in BF16; 0 in FP32. The rehearsals above count the copies of the decoder's trained weights.

    Autocast keeps none of frozen ones, but `cast_once` does while tokens are drawn.
    """
    if _number(backbone) == FP32:
        return 0
    linear = (part for part in backbone.decoder.modules() if isinstance(part, nn.Linear)) if is_decoding else ()
    frozen = sum(p.numel() for part in linear for p in part.parameters(recurse=False) if not p.requires_grad)
    return BF16 * (backbone.head.weight.numel() + frozen)


class _OneKernel(torch.autograd.Function):
    """What a fused kernel for all documents keeps: queries, keys, values, its output, and a number per query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None


class _VariableLengths:
    """Stands for `masked_attention.VariableLengthRows`, whose kernel runs on a GPU only."""

    compiles = True

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float, static_shapes: bool = False) -> Any:
        return _OneKernel.apply(*map(in_compute_type, (q, k, v)))


def _mask(backbone: HFBackbone, rows: int, tokens: int, device_type: str) -> Tensor:
    """What the decoder takes for packed rows of one document each (`hf_attention.packed_mask`), on this type of device."""
    kernel: Any = DocumentRows((tokens,) * rows)
    if device_type == "cuda" and _number(backbone) == BF16:
        kernel = _VariableLengths()
    elif is_dense(tokens) or not backbone.takes_documents:
        return torch.zeros(rows, 1, tokens, tokens, dtype=_compute_type(backbone))
    ids = torch.ones(rows, 1, 1, tokens, dtype=torch.long)
    setattr(ids, ROWS, kernel)
    return ids


def _first_column(stage: _Stage) -> Any:
    """Return the layers of a cache after one token."""
    from transformers import DynamicCache

    with stage.playing(), torch.no_grad():
        cache = DynamicCache()
        stage(1, 1, torch.zeros(1, 1, 1, 1), cache)
    return cache.layers


def _blocks(decoder: nn.Module) -> Any:
    """Return the decoder's layers: the longest list of modules in it."""
    lists = [part for part in decoder.modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=len, default=())


def _number(backbone: HFBackbone) -> int:
    return BF16 if getattr(backbone.precision, "compute", "fp32") == "bf16" else FP32


def _compute_type(backbone: HFBackbone) -> torch.dtype:
    return torch.bfloat16 if _number(backbone) == BF16 else torch.float32
