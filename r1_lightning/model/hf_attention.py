"""Packed rows for the models of `transformers`: their attention function, and what stands in place of a mask.

`transformers` 5 lets a program register an attention function by name. Ours takes what its own fused one takes, and one thing more:
the ids of the documents, B x 1 x 1 x T integers (B x 2 x 1 x T where documents continue others), in place of a mask B x 1 x T x T.
With four dimensions they go through a decoder untouched, as a mask that is ready to use does. `model/masked_attention.py` reads
them: a long row makes no T x T tensor.

Models with attention of their own, which cannot be told by name, keep the dense mask. So do those whose code changes a mask before
attention sees it (Doge adds to it): `ids_arrive` looks, once, when the model is made.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.masking import document_attention_mask
from r1_lightning.model.continued_rows import packed_attention
from r1_lightning.model.masked_attention import DenseRows, RowAttention
from r1_lightning.types.errors import require

NAME = "r1_lightning"
# The attribute of the ids that holds their `RowAttention`: made once, and read in every layer.
ROWS = "row_attention"
PROBE = (1, 1, 1, 2, 2, 2, 2, 2)  # documents of the row by which `ids_arrive` looks


def take_documents(model: Any) -> bool:
    """Let the attention of a `transformers` model take `packed_mask`; False if its class has attention of its own or changes it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # for callers that give a plain mask of padding, or none
    if not model._can_set_attn_implementation():
        return False
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation == NAME and ids_arrive(model.get_decoder()):
        return True
    model.set_attn_implementation("sdpa")
    return False


@torch.no_grad()
def ids_arrive(decoder: Any) -> bool:
    """True if the ids of two documents, given to `decoder` as its mask, reach `attend` unchanged in every layer that runs.

    A copy of `decoder` runs whose weights are on the meta device: nothing is read or computed, and what a forward keeps (rotary
    frequencies) stays in the copy. A layer that needs values (experts choose by them) raises an error there; the layers before it
    have been seen.
    """
    from transformers import AttentionInterface

    ids = torch.tensor(PROBE, device="cpu")[None, None, None]
    arrived: list[bool] = []

    def watch(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
    ) -> tuple[Tensor, None]:
        arrived.append(_same(attention_mask, ids))
        return query.new_empty(*query.transpose(1, 2).shape[:3], value.shape[-1]), None

    weights = [*decoder.parameters(), *decoder.buffers()]
    shapes = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in weights}
    places = torch.arange(len(PROBE), device="meta")[None]
    given = {"input_ids": places, "position_ids": places, "attention_mask": ids, "use_cache": False}
    AttentionInterface.register(NAME, watch)
    try:
        copy.deepcopy(decoder, shapes)(**given)
    except Exception:  # any code of any family
        pass
    finally:
        AttentionInterface.register(NAME, attend)
    return bool(arrived) and all(arrived)


def _same(found: Tensor | None, given: Tensor) -> bool:
    """True if a mask is what was given, in type, device, shape and values."""
    if found is None or (found.dtype, found.device, found.shape) != (given.dtype, given.device, given.shape):
        return False
    return torch.equal(found, given)


def packed_mask(document_ids_BT: Tensor, takes_documents: bool, prefix_ids_BT: Tensor | None = None) -> Tensor:
    """Return what a decoder takes as `attention_mask` of packed rows: the dense mask of short rows, or ids B x 1 x 1 x T.

    Of rows with prefixes, short or long, the ids are B x 2 x 1 x T, documents first.
    """
    rows = packed_attention(document_ids_BT, prefix_ids_BT) if takes_documents else DenseRows.of(document_ids_BT)
    if isinstance(rows, DenseRows) and prefix_ids_BT is None:
        return rows.mask
    return _carrying(rows, document_ids_BT, prefix_ids_BT)


def new_columns_mask(attend_R1TS: Tensor | RowAttention, is_token_RT: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a decoder takes as `attention_mask` of new columns: an additive mask, or ids R x 1 x 1 x T of long prompts."""
    if not isinstance(attend_R1TS, Tensor):
        return _carrying(attend_R1TS, is_token_RT.long())
    lowest = torch.finfo(dtype).min  # not -inf: see `mla.step_mask`
    return torch.zeros_like(attend_R1TS, dtype=dtype).masked_fill_(~attend_R1TS, lowest)


def _carrying(rows: RowAttention, document_ids_BT: Tensor, prefix_ids_BT: Tensor | None = None) -> Tensor:
    kinds = [document_ids_BT] if prefix_ids_BT is None else [document_ids_BT, prefix_ids_BT]
    ids = torch.stack(kinds, 1)[:, :, None]
    setattr(ids, ROWS, rows)
    return ids


def groups_heads(device: torch.device) -> bool:
    """True where a decoding step reads keys and values as they are cached: not on a CPU, whose results keep their bits."""
    return device.type == "cuda"


def is_grouped_step(query: Tensor, key: Tensor, options: dict[str, Any]) -> bool:
    """True for one new position of heads that share keys and values, without a bias that depends on the position."""
    return query.shape[2] == 1 and query.shape[1] != key.shape[1] and options.get("position_bias") is None


def grouped_step(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Attention of one position, B x 1 x N x U: the heads of a group stand where positions would, so that nothing is repeated.

    `transformers` repeats keys and values for the heads of their group: with the 6 heads of Qwen2.5-1.5B's groups a step reads and
    writes the cache seven times.
    """
    heads = key.shape[1]
    grouped = query.reshape(query.shape[0], heads, -1, query.shape[3])  # B x G x P x H
    o = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return o.reshape(o.shape[0], 1, query.shape[1], o.shape[3])


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """`transformers`' SDPA attention, and that of packed rows; query B x N x T x H, keys and values B x G x T x ..., G divides N.

    Returns B x T x N x U.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    is_ids = attention_mask is not None and not attention_mask.is_floating_point() and attention_mask.element_size() > 1
    if (
        attention_mask is not None
        and not is_ids
        and groups_heads(query.device)
        and is_grouped_step(query, key, options)
    ):
        return grouped_step(query, key, value, attention_mask, scaling), None
    if attention_mask is None or not is_ids:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
        return output, None
    key, value = (part[:, :, : query.shape[2]] for part in (key, value))  # a GPU's cache gives whole blocks of columns
    ids = attention_mask[:, :, 0].unbind(1)
    if options.get("position_bias") is not None:  # ALiBi and its like: only the dense mask can be added to it
        require(
            len(ids) == 1,
            "rollout.share_prompts_from",
            "a number",
            "this model's position bias counts places in the row",
        )
        mask = document_attention_mask(*ids)
        output, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **options)
        return output, None
    rows: RowAttention = getattr(attention_mask, ROWS, None) or packed_attention(
        ids[0], ids[1] if len(ids) > 1 else None
    )
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    return rows(q, k, v, query.shape[-1] ** -0.5 if scaling is None else scaling), None
