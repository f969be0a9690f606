"""A copy of a training state: equal, apart from what it was copied from, and in the memory of the copy before it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from r1_lightning.artefacts.host_copy import HostCopy


def state() -> dict[str, Any]:
    whole = torch.arange(12.0).reshape(3, 4)
    numbers = [1, [2.5, None], ("a", True, b"b")]
    return {"whole": whole, "turned": whole.t(), "half": torch.ones(2).bfloat16(), "none": torch.empty(0), "n": numbers}


def held(copy: HostCopy) -> int:
    """Bytes of the buffers of the last copy."""
    return sum(tensor.nbytes for tensor in copy.made.values())


def test_it_is_equal_and_stays_so_when_the_state_moves() -> None:
    here, copy = state(), HostCopy()
    copied = copy(here)
    here["whole"].zero_()
    here["n"][1][0] = -1
    assert copied["n"] == [1, [2.5, None], ("a", True, b"b")]
    assert torch.equal(copied["whole"], torch.arange(12.0).reshape(3, 4)) and copied["none"].numel() == 0
    assert torch.equal(copied["turned"], copied["whole"].t()) and copied["turned"].stride() == (1, 4)
    assert copied["half"].dtype == torch.bfloat16
    assert held(copy) == 2 * 12 * 4 + 2 * 2


def test_what_shares_memory_is_copied_once() -> None:
    """As a tied embedding and head do; a file would hold it twice otherwise."""
    weight, copy = torch.ones(5), HostCopy()
    copied = copy({"embedding": weight.detach(), "head": weight.detach()})
    assert copied["embedding"] is copied["head"] and held(copy) == 20


def test_the_next_copy_is_in_the_same_memory() -> None:
    copy = HostCopy()
    first = copy({"a": torch.zeros(4), "b": torch.zeros(4), "c": torch.zeros(2)})
    places = {tensor.data_ptr() for tensor in first.values()}
    second = copy({"a": torch.full((4,), 1.0), "b": torch.full((4,), 2.0), "c": torch.full((2,), 3.0)})
    assert {tensor.data_ptr() for tensor in second.values()} == places
    assert [float(tensor.mean()) for tensor in second.values()] == [1.0, 2.0, 3.0]
    copy({"a": torch.zeros(3)})
    assert held(copy) == 12, "what is not used again is given back"


def test_a_state_keeps_its_type_and_its_version_numbers() -> None:
    model = nn.BatchNorm1d(2)
    copied = HostCopy()(model.state_dict())
    assert type(copied) is OrderedDict and copied._metadata == model.state_dict()._metadata
    nn.BatchNorm1d(2).load_state_dict(copied)


@pytest.mark.requires_gpu
def test_from_a_gpu_it_is_in_pinned_memory() -> None:
    values = torch.arange(1000.0)
    copied = HostCopy()({"a": values.cuda()})["a"]
    assert copied.is_pinned() and torch.equal(copied, values)
