"""DeepSeek-R1 as a graph of stages over one backbone: a pure core that knows the mathematics, thin Lightning stages
that call it, and one composition root that resolves the graph.

Importing this package imports nothing else: a layer is loaded when it is first named (PEP 562), so that a process which
only handles strings, such as a verifier worker, never pays for torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# From the top of the house to the bottom; a layer imports only from layers further right, see pyproject.toml.
LAYERS = ("run", "stages", "data", "callbacks", "evaluation", "rollout", "review", "artefacts", "model", "rewards",
          "tasks", "functional", "text", "types")  # fmt: skip


# For a notebook: what `run/commands/notebook.py` gives, under the package's own name.
SHORTCUTS = ("load", "generate", "save")


def __getattr__(name: str) -> Any:
    if name in LAYERS:
        return import_module(f"{__name__}.{name}")
    if name in SHORTCUTS:
        return getattr(import_module(f"{__name__}.run.commands.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LAYERS, *SHORTCUTS})
