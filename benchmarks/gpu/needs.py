"""Which packages the parts of the GPU check import, and which of them this machine lacks. Imports none of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

# What all parts import. TRL's side of the GRPO step has a list of its own, and is skipped alone.
NEEDS = ("torch", "lightning", "jaxtyping", "numpy", "safetensors", "tokenizers", "yaml")


def missing(modules: Sequence[str]) -> str:
    """The reason for which a part that imports `modules` cannot run; "" where all are there."""
    absent = [module for module in modules if find_spec(module) is None]
    return f"{', '.join(absent)} not installed" if absent else ""
