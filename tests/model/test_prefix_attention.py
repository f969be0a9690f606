"""Attention in two parts against one softmax over all keys."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from r1_lightning.model import prefix_attention
from r1_lightning.model.prefix_attention import (
    PrefixAttention,
    Span,
    Together,
    spelled_out,
    spelled_out_backward,
    together,
)
from tests.model.tiny import normal

CPU = torch.device("cpu")
# A prefix of 4 places, documents of 3, 1 and 2 that continue it, and one of 2 alone.
BORDERS = [0, 4, 7, 8, 10, 12]
OWN = together(BORDERS[:-1], [end - start for start, end in pairwise(BORDERS)], CPU)
SHARED = (Span(4, 10, 0, 4),)


def parts(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values of 12 places, 2 heads of 8."""
    return [normal(12, 2, 8, seed=seed).to(dtype).requires_grad_() for seed in range(3)]


def in_loops(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Place by place."""
    outputs = []
    for place in range(12):
        start = max(border for border in BORDERS if border <= place)
        seen = [*(range(4) if 4 <= place < 10 else ()), *range(start, place + 1)]
        weights = (torch.einsum("nh,jnh->nj", q[place], k[seen]) * scale).softmax(-1)
        outputs.append(torch.einsum("nj,jnh->nh", weights, v[seen]))
    return torch.stack(outputs)


def attended(q: Tensor, k: Tensor, v: Tensor, scale: float = 0.3) -> Tensor:
    found: Tensor = PrefixAttention.apply(q, k, v, OWN, SHARED, scale)
    return found


def test_two_parts_are_one_softmax_and_their_gradients_too() -> None:
    direction = normal(12, 2, 8, seed=9)
    found, expected = parts(), parts()
    one, other = attended(*found), in_loops(*expected, scale=0.3)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    (one * direction).sum().backward()
    (other * direction).sum().backward()
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-6, rtol=1e-5)


def test_the_backward_is_the_derivative_of_the_forward() -> None:
    assert torch.autograd.gradcheck(attended, parts(torch.float64))


def test_a_prefix_with_far_larger_scores_takes_all_the_weight() -> None:
    """Scores of 300 and 0: exp(300) is no number in FP32, and the document's own keys are left with a weight of exp(-300)."""
    q = torch.full((12, 2, 8), 10.0)
    k = torch.zeros(12, 2, 8)
    k[:4] = 30.0 / 8
    found = attended(q, k, torch.arange(12.0)[:, None, None].expand(12, 2, 8).contiguous(), scale=1.0)
    assert found[4:10].tolist() == [[[1.5] * 8] * 2] * 6  # the mean of 0, 1, 2 and 3
    assert found[11, 0, 0] == 10.5


def test_bf16_is_off_by_its_rounding_alone() -> None:
    """Three roundings of numbers up to 2, each by 2^-9 of a number at most: of the weights, of each sum, and of the whole."""
    half = parts(torch.bfloat16)
    exact = [part.detach().float().requires_grad_() for part in half]
    found, expected = attended(*half), attended(*exact)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=3 * 2 * 2**-9, rtol=0)
    for output in (found, expected):
        (output.float() * normal(12, 2, 8, seed=9)).sum().backward()
    for one, other in zip(half, exact, strict=True):
        assert one.grad is not None and other.grad is not None and one.grad.dtype == torch.bfloat16
        assert (one.grad.float() - other.grad).abs().max() < 2**-7 * other.grad.abs().max()


def test_the_sums_of_weights_and_the_backward_stay_in_fp32() -> None:
    class Kernels(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[str, torch.dtype, torch.dtype]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if "flash_attention" in func._schema.name:
                self.seen.append((func._schema.name.split("::")[1], args[0].dtype, found[1].dtype))
            return found

    with Kernels() as kernels:
        attended(*parts(torch.bfloat16)).float().sum().backward()
    name = "_scaled_dot_product_flash_attention_for_cpu"
    assert set(kernels.seen) == {
        (name, torch.bfloat16, torch.float32),
        (f"{name}_backward", torch.float32, torch.float32),
    }


@pytest.mark.parametrize("block", [2, 256])
def test_other_devices_compute_the_same(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = attended(*(kernel := parts()))
    expected.square().sum().backward()
    monkeypatch.setattr(prefix_attention, "QUERY_BLOCK", block)
    monkeypatch.setattr(prefix_attention, "_attend", spelled_out)
    monkeypatch.setattr(prefix_attention, "_attend_backward", spelled_out_backward)
    found = attended(*(spelled := parts()))
    found.square().sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for one, other in zip(spelled, kernel, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=2e-6, rtol=1e-5)


def test_documents_about_as_long_are_taken_together_by_hand() -> None:
    # Of 10, 4, 5, 12 and 1 places 5 and 4 are less than half of 12, and 1 is less than half of 5.
    calls = together([0, 10, 14, 19, 31], [10, 4, 5, 12, 1], CPU)
    assert [call.places[:, 0].tolist() for call in calls] == [[19, 0], [14, 10], [31]]


def test_a_shorter_document_repeats_its_last_place_and_writes_no_place_twice() -> None:
    call = Together.of([5, 1], [3, 2], CPU)
    assert call.places.tolist() == [[5, 6, 7], [1, 2, 2]] and call.kept.tolist() == [0, 1, 2, 3, 4]
    taken = call.taken(torch.arange(8.0)[:, None, None])
    assert taken.flatten().tolist() == [5, 6, 7, 1, 2, 2]
    assert call.only_kept(taken).flatten().tolist() == [5, 6, 7, 1, 2, 0]
    taken[1, 0, 2] = 99.0  # a repetition
    into = torch.zeros(8, 1, 1)
    call.put(taken, into)
    assert into.flatten().tolist() == [0, 1, 2, 0, 0, 5, 6, 7]


class Largest(TorchDispatchMode):
    """The largest number of elements that an operator returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for part in found if isinstance(found, tuple | list) else [found]:
            if isinstance(part, Tensor) and not part._is_view():
                self.elements = max(self.elements, part.numel())
        return found


def test_no_tensor_grows_with_the_square_of_the_row_or_copies_the_prefix() -> None:
    """A prefix of 2,000 places, sixteen documents of 10: sixteen copies of the prefix would be 32,000 places."""
    places, starts = 2160, [0, *range(2000, 2160, 10)]
    own = together(starts, [2000] + [10] * 16, CPU)
    q, k, v = (normal(places, 2, 8, seed=seed).requires_grad_() for seed in range(3))
    with Largest() as largest:
        PrefixAttention.apply(q, k, v, own, (Span(2000, places, 0, 2000),), 0.3).sum().backward()
    assert largest.elements == places * 2 * 8
