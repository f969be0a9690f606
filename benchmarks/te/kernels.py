"""A stand-in for `transformer_engine_torch`, the compiled half of Transformer Engine, where only its Python half is installed.

The compiled half is built for minutes from an sdist; what we call is written in Python. A name asked of the stand-in is a class
that does nothing, and a name asked of that is a number, its place in an enumeration: the order in which names are asked, except
where the package uses the number (`KNOWN`). Nothing can be computed with it.
"""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from types import ModuleType
from typing import Any

NAME, DISTRIBUTION = "transformer_engine_torch", "transformer-engine-torch"
# Places of quantisers in a layer's list, as in csrc/common.h of 2.20.2.
KNOWN = {
    "FP8FwdTensors": [f"GEMM{product}_{operand}" for product in (1, 2, 3) for operand in ("INPUT", "WEIGHT", "OUTPUT")],
    "FP8BwdTensors": [f"GRAD_{operand}{product}" for product in (1, 2, 3) for operand in ("OUTPUT", "INPUT")],
}


class Enumeration(type):
    """A class of numbers, one for each name that it was asked for."""

    @property
    def __members__(cls) -> dict[str, int]:
        found: dict[str, int] = vars(cls)["asked"]
        return found

    def __getattr__(cls, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        asked = cls.__members__
        return asked.setdefault(name, len(asked))


class Kernels(ModuleType):
    """The module: any name is there."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        asked = {member: number for number, member in enumerate(KNOWN.get(name, ()))}
        made = Enumeration(name, (), {"asked": asked, "__init__": lambda self, *given, **named: None})
        setattr(self, name, made)
        return made


def are_installed() -> bool:
    """Whether the compiled half is installed."""
    try:
        metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return False
    return True


def stand_in() -> None:
    """Put the stand-in where Transformer Engine would load its compiled half."""
    common: Any = importlib.import_module("transformer_engine.common")
    sys.modules[NAME] = Kernels(NAME)
    common.load_framework_extension = lambda framework: None
