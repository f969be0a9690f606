"""Softmax attention onto two sets of keys, a shared prefix and the document itself, without a copy of the prefix per document.

Each part is a kernel call of its own, which gives a weighted sum o and the logarithm l of the sum of its weights. The softmax over
both is o = sum_i exp(l_i - l) o_i with l = log(exp(l_1) + exp(l_2)), as ring attention (arXiv:2310.01889) merges blocks of keys.
The backward of a part is the kernel's own with the merged o and l: its weights exp(s - l) are then those of the whole softmax.

So all documents of a prefix are one call without a mask, in which they stand behind each other as queries, and all documents of
about the same length are one causal call, filled up to the longest of them.

On a CPU the calls are those of `F.scaled_dot_product_attention` there, the backward in FP32 whatever the compute type: in BF16
that of short causal documents takes ten times as long. Elsewhere they are spelled out, in FP32, with the scores of `QUERY_BLOCK`
queries at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Shape legend: S positions of all rows, N heads, H width of queries, keys and values, C documents of a call of t positions each.

MOST_FILLED = 2  # documents at most so many times shorter than the longest of a call are filled up to it
QUERY_BLOCK = 256  # queries of each document whose scores are made at once where they are spelled out


class Together(NamedTuple):
    """Documents of a causal call: the place of each position among all S, C x t; where one is shorter, places repeat its last.

    `kept` are the entries of the flat C x t that are not such repetitions.
    """

    places: Tensor
    kept: Tensor

    @classmethod
    def of(cls, starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Together:
        start_C, length_C = (torch.tensor(numbers, device=device).unsqueeze(1) for numbers in (starts, lengths))
        place_t = torch.arange(max(lengths), device=device)
        kept = (place_t < length_C).flatten().nonzero().squeeze(1)
        return cls(start_C + torch.minimum(place_t, length_C - 1), kept)

    def taken(self, part_SNH: Tensor) -> Tensor:
        """C x N x t x H."""
        return part_SNH.index_select(0, self.places.flatten()).unflatten(0, self.places.shape).transpose(1, 2)

    def put(self, part_CNtH: Tensor, into_SNH: Tensor) -> None:
        """Write what `taken` would take, repetitions apart."""
        flat = part_CNtH.transpose(1, 2).flatten(0, 1)
        into_SNH.index_copy_(0, self.places.flatten()[self.kept], flat.index_select(0, self.kept))

    def only_kept(self, part_CNtH: Tensor) -> Tensor:
        """With zeros at repetitions."""
        if len(self.kept) == self.places.numel():
            return part_CNtH
        is_kept = torch.zeros(self.places.numel(), device=part_CNtH.device).index_fill_(0, self.kept, 1.0)
        return part_CNtH * is_kept.view(len(self.places), 1, -1, 1)


class Span(NamedTuple):
    """The places among all S of a document, or of several behind each other, and of the prefix that they continue.

    `since` = `until` if they continue none.
    """

    start: int
    end: int
    since: int
    until: int

    def taken(self, qkv_SNH: Sequence[Tensor]) -> list[Tensor]:
        """Queries of the documents, keys and values of the prefix, 1 x N x positions x H."""
        here, prefix = slice(self.start, self.end), slice(self.since, self.until)
        return [
            part[place].transpose(0, 1).unsqueeze(0)
            for part, place in zip(qkv_SNH, (here, prefix, prefix), strict=True)
        ]


class Sides(NamedTuple):
    """What the backward of a call has beside q, k and v; `out` and `log_sum` may be those of a softmax over more keys."""

    gradient: Tensor
    out: Tensor
    log_sum: Tensor


def together(starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> tuple[Together, ...]:
    """Put documents that are about as long into one call, the longest first."""
    calls: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not calls or MOST_FILLED * lengths[number] < lengths[calls[-1][0]]:
            calls.append([])
        calls[-1].append(number)
    return tuple(Together.of([starts[n] for n in call], [lengths[n] for n in call], device) for call in calls)


class PrefixAttention(torch.autograd.Function):
    """Queries, keys and values S x N x H to weighted sums S x N x H: a document onto itself, and onto the prefix it continues."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, own: Sequence[Together], shared: Sequence[Span], scale: float
    ) -> Tensor:
        qkv, dtype = (q, k, v), _at_least_fp32(q.dtype)
        out, log_sum = torch.empty_like(q, dtype=dtype), q.new_empty(q.shape[:2], dtype=dtype)
        for call in own:
            out_CNtH, log_sum_CNt = _attend([call.taken(part) for part in qkv], is_causal=True, scale=scale)
            call.put(out_CNtH.to(dtype), out)
            call.put(log_sum_CNt.unsqueeze(-1), log_sum.unsqueeze(-1))
        for run in shared:
            out_1NtH, log_sum_1Nt = _attend(run.taken(qkv), is_causal=False, scale=scale)
            before, here = (part[run.start : run.end] for part in (log_sum, out))
            added = log_sum_1Nt[0].transpose(0, 1)
            merged = torch.logaddexp(before, added)
            here.mul_((before - merged).exp_().unsqueeze(-1))
            here.addcmul_(out_1NtH[0].transpose(0, 1), (added - merged).exp_().unsqueeze(-1))
            before.copy_(merged)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, log_sum)
        ctx.calls = own, shared, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *saved, log_sum = ctx.saved_tensors
        *qkv, out, gradient = (part.to(_at_least_fp32(part.dtype)) for part in (*saved, *gradients))
        (own, shared, scale), found = ctx.calls, [torch.zeros_like(part) for part in qkv]
        for call in own:
            log_sum_CNt = call.taken(log_sum.unsqueeze(-1)).squeeze(-1)
            sides = Sides(call.only_kept(call.taken(gradient)), call.taken(out), log_sum_CNt)
            added = _attend_backward([call.taken(part) for part in qkv], sides, is_causal=True, scale=scale)
            for total, part in zip(found, added, strict=True):
                call.put(part, total)
        for run in shared:
            here, prefix = slice(run.start, run.end), slice(run.since, run.until)
            sides = Sides(*(part[here].transpose(0, 1).unsqueeze(0) for part in (gradient, out, log_sum)))
            added = _attend_backward(run.taken(qkv), sides, is_causal=False, scale=scale)
            for total, place, part in zip(found, (here, prefix, prefix), added, strict=True):
                total[place] += part[0].transpose(0, 1)
        return *(total.to(saved[0].dtype) for total in found), None, None, None


def _at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _attend(qkv: Sequence[Tensor], *, is_causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Weighted sums C x N x t x H and logarithms of the sums of weights C x N x t: q C x N x t x H onto k and v C x N x s x H.

    On a CPU the sums come in the type of q; elsewhere, and the logarithms always, at least in FP32.
    """
    if qkv[0].device.type != "cpu":
        return spelled_out([part.to(_at_least_fp32(part.dtype)) for part in qkv], is_causal=is_causal, scale=scale)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    found: tuple[Tensor, Tensor] = kernel(*qkv, 0.0, is_causal, scale=scale)
    return found


def _attend_backward(qkv: Sequence[Tensor], sides: Sides, *, is_causal: bool, scale: float) -> tuple[Tensor, ...]:
    """Gradients of q, k and v."""
    if qkv[0].device.type != "cpu":
        return spelled_out_backward(qkv, sides, is_causal=is_causal, scale=scale)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    gradient, out, log_sum = sides
    found: tuple[Tensor, ...] = kernel(gradient, *qkv, out, log_sum.contiguous(), 0.0, is_causal, scale=scale)
    return found


def spelled_out(qkv: Sequence[Tensor], *, is_causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """What the CPU's kernel computes, on any device."""
    q, k, v = qkv
    outputs, log_sums = [], []
    for first in range(0, q.shape[2], QUERY_BLOCK):
        scores = _scores(q, k, first, is_causal, scale)
        log_sums.append(scores.logsumexp(-1))
        outputs.append((scores - log_sums[-1].unsqueeze(-1)).exp() @ v)
    return torch.cat(outputs, 2), torch.cat(log_sums, 2)


def spelled_out_backward(qkv: Sequence[Tensor], sides: Sides, *, is_causal: bool, scale: float) -> tuple[Tensor, ...]:
    """What the CPU's kernel computes in the backward, on any device."""
    (q, k, v), by_query = qkv, []
    by_key, by_value = torch.zeros_like(k), torch.zeros_like(v)
    for first in range(0, q.shape[2], QUERY_BLOCK):
        gradient, out, log_sum, queries = (part[:, :, first : first + QUERY_BLOCK] for part in (*sides, q))
        weights = (_scores(q, k, first, is_causal, scale) - log_sum.unsqueeze(-1)).exp()
        by_score = weights * (gradient @ v.transpose(-1, -2) - (gradient * out).sum(-1, keepdim=True)) * scale
        by_query.append(by_score @ k)
        by_key += by_score.transpose(-1, -2) @ queries
        by_value += weights.transpose(-1, -2) @ gradient
    return torch.cat(by_query, 2), by_key, by_value


def _scores(q: Tensor, k: Tensor, first: int, is_causal: bool, scale: float) -> Tensor:
    """The scores of `QUERY_BLOCK` queries from `first` on."""
    scores = q[:, :, first : first + QUERY_BLOCK] @ k.transpose(-1, -2) * scale
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(first + 1)
    return scores.masked_fill(later, float("-inf")) if is_causal else scores
