"""What `model/fp8_te.py` calls in Transformer Engine: recorded by running it once with a stand-in of that name.

The stand-in takes any arguments and computes nothing, so that a call is recorded as our code makes it now. `MEANT` says what we
mean by the arguments without a name. A call that is not in it is an error: whoever adds one says here what is meant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from r1_lightning.functional.fp8_products import Recipe
from r1_lightning.model import fp8_te

PACKAGE = "transformer_engine"
MODULES = (PACKAGE, f"{PACKAGE}.pytorch", f"{PACKAGE}.common", f"{PACKAGE}.common.recipe")
# By the real names: what the arguments without a name are.
MEANT: dict[str, tuple[str, ...]] = {
    "common.recipe.Float8BlockScaling.__init__": (),
    "common.recipe.QParams.__init__": (),
    "pytorch.autocast.__init__": (),
    "pytorch.Linear.__init__": ("in_features", "out_features"),
    "pytorch.Linear.forward": ("inp",),
    "pytorch.GroupedLinear.__init__": ("num_gemms", "in_features", "out_features"),
    "pytorch.GroupedLinear.forward": ("inp", "m_splits"),
    "pytorch.Fp8Padding.__init__": ("num_gemms", "align_size"),
    "pytorch.Fp8Padding.forward": ("inp", "m_splits"),
    "pytorch.Fp8Unpadding.__init__": ("num_gemms", "align_size"),
    "pytorch.Fp8Unpadding.forward": ("inp", "m_splits"),
}


@dataclass(frozen=True)
class Call:
    """A call of `target`, by its name within the package: what is given without a name, and the names of the rest."""

    target: str
    meant: tuple[str, ...]
    named: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.target}({', '.join((*self.meant, *(f'{name}=' for name in self.named)))})"


def calls_made() -> list[Call]:
    """Return every call that making and running a layer of each kind takes, each once, in order."""
    made: dict[Call, None] = {}

    def record(target: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(given) != len(MEANT[target]):
            raise ValueError(f"{target} was given {len(given)} arguments without a name, and {MEANT[target]} are meant")
        made[Call(target, MEANT[target], tuple(sorted(named)))] = None

    precision = SimpleNamespace(recipe=Recipe(), is_on=True)
    x, ends = torch.zeros(3, 16), torch.tensor([1, 3], dtype=torch.int32)
    with standing_in(_stand_in(record)), torch.no_grad():
        fp8_te.make_linear(16, 16, precision)(x)
        fp8_te.make_grouped(2, 16, 16, precision)(x, ends)
    return list(made)


@contextmanager
def standing_in(modules: dict[str, ModuleType]) -> Iterator[None]:
    """These modules in place of Transformer Engine's, if there are any; layers are made anew before and after."""
    fp8_te._layers.cache_clear()
    try:
        with mock.patch.dict(sys.modules, modules):
            yield
    finally:
        fp8_te._layers.cache_clear()


def _stand_in(record: Callable[[str, tuple[Any, ...], dict[str, Any]], None]) -> dict[str, ModuleType]:
    def recorded(name: str, base: type, answer: Callable[..., Any] | None = None) -> type:
        """A class whose making is recorded; with `answer`, calls of `forward` are, too."""

        def made(self: Any, *given: Any, **named: Any) -> None:
            record(f"{name}.__init__", given, named)
            base.__init__(self)  # type: ignore[misc]
            self.made_with = given

        def forward(self: Any, *given: Any, **named: Any) -> Any:
            record(f"{name}.forward", given, named)
            assert answer is not None
            return answer(self, *given)

        methods = {"__init__": made} | ({"forward": forward} if answer else {})
        return type(name.rpartition(".")[2], (base,), methods)

    modules = {name: ModuleType(name) for name in MODULES}
    pytorch, recipe = modules[f"{PACKAGE}.pytorch"], modules[f"{PACKAGE}.common.recipe"]
    modules[PACKAGE].pytorch = pytorch  # type: ignore[attr-defined]
    values = {
        "Linear": recorded("pytorch.Linear", nn.Module, lambda self, x: x.new_zeros(len(x), self.made_with[1])),
        "GroupedLinear": recorded("pytorch.GroupedLinear", nn.Module, _grouped),
        "Fp8Padding": recorded("pytorch.Fp8Padding", nn.Module, lambda self, x, rows: (x, rows)),
        "Fp8Unpadding": recorded("pytorch.Fp8Unpadding", nn.Module, lambda self, x, rows: x),
        "autocast": recorded("pytorch.autocast", _Region),
    }
    for name, value in values.items():
        setattr(pytorch, name, value)
    for name in ("Float8BlockScaling", "QParams"):
        setattr(recipe, name, recorded(f"common.recipe.{name}", SimpleNamespace))
    return modules


def _grouped(layer: Any, x: Tensor, rows: list[int]) -> Tensor:
    return x.new_zeros(len(x), layer.made_with[2])


class _Region:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
