"""Dataclasses of tensors move whole: their tensors, those of dataclasses inside, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1_lightning.types.movable import Movable


@dataclass(frozen=True)
class Inner(Movable):
    numbers: Tensor


@dataclass(frozen=True)
class Outer(Movable):
    inner: Inner
    number: Tensor
    missing: Inner | None
    name: str


def test_tensors_move_with_those_inside_and_the_rest_stays() -> None:
    given = Outer(Inner(torch.ones(2)), torch.zeros(1), None, "a name")
    moved = given.to("meta")
    assert isinstance(moved, Outer) and (moved.missing, moved.name) == (None, "a name")
    assert {moved.number.device.type, moved.inner.numbers.device.type} == {"meta"}
    assert given.inner.numbers.device.type == "cpu"
