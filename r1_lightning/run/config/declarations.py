"""The declarations of classes that a configuration names: `run` reads these attributes and never compares class names.

    batch_type      of a data module: the type of its batches; of a stage: the type that it trains on
    needs           of either: what the task or the stage's inputs must provide (`types.text.Need`)
    own_rewards     of a stage: the field with the rewards that it uses in place of the configuration's `reward`
    library         of a model's configuration: which library makes the network
    drafts, records_routes, is_engine, check_installed   of a sampler's settings: what it does, and whether its library is here
    part_of_model   of a reward: it asks trained models (`types.text.ModelReward`)

All are plain class attributes, not configuration, so no fingerprint covers them. A user's own class may omit them; then nothing is
checked. If a room of `run` treats kinds of stages or data differently, it has a table by class, and a subclass uses the line of its
nearest base class (`line_of`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from hydra.utils import get_object

from r1_lightning.types.text import Need

Line = TypeVar("Line")
OURS, TRANSFORMERS = "r1_lightning", "transformers"  # libraries


def class_of(node: Any) -> Any:
    """Return the class (or function) that a configuration node names; None if it names none."""
    target = node.get("_target_") if hasattr(node, "get") else None
    return None if not target else get_object(str(target))


def needs_of(node: Any) -> tuple[Need, ...]:
    """Return the needs that the class of `node` declares."""
    return cast(tuple[Need, ...], getattr(class_of(node), "needs", ()))


def batch_type_of(node: Any) -> type | None:
    """Return the type of batch that the class of `node` makes or trains on; None if it declares none."""
    return getattr(class_of(node), "batch_type", None)


def is_ours(model: Any) -> bool:
    """True if the network of this `model` node is our own backbone."""
    return getattr(class_of(model), "library", None) == OURS


def is_of_transformers(model: Any) -> bool:
    """True if `transformers` makes the network of this `model` node."""
    return getattr(class_of(model), "library", None) == TRANSFORMERS


def asks_a_model(reward: Any) -> bool:
    """Whether the reward of this node asks a trained model of its own: the stage's input of its name."""
    return "name" in reward and hasattr(class_of(reward), "part_of_model")


def line_of(table: Mapping[type, Line], target: Any) -> Line | None:
    """Return the entry of `target` in a table by class: its own, or that of its nearest base class; None if there is none."""
    bases = target.__mro__ if isinstance(target, type) else ()
    return next((table[base] for base in bases if base in table), None)
