"""What a class that a configuration names says of itself: `run` asks the declaration and never for the class by name.

    batch_type      of a data module: the type of its batches; of a stage: the type that it trains on
    needs           of either: what the task or the stage's inputs must hold (`types.text.Need`)
    own_rewards     of a stage: the field with the rewards that it reads in place of the configuration's `reward`
    library         of a model's configuration: which library makes the network
    drafts, records_routes, is_engine, check_installed   of a sampler's settings: what it does, and whether its library is here
    part_of_model   of a reward: it asks trained models (`types.text.ModelReward`)

All are plain class attributes, no configuration, so that no fingerprint counts them. A class of somebody's own may leave them out:
then nothing is checked. Where a room of `run` does something else for each kind of stage or data, it has a table by class, and a
subclass has the line of its nearest base class (`line_of`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from hydra.utils import get_object

from r1_lightning.types.text import Need

Line = TypeVar("Line")
OURS, TRANSFORMERS = "r1_lightning", "transformers"  # libraries


def class_of(node: Any) -> Any:
    """The class (or function) that a node of a configuration names; None where it names none."""
    target = node.get("_target_") if hasattr(node, "get") else None
    return None if not target else get_object(str(target))


def needs_of(node: Any) -> tuple[Need, ...]:
    """What the class of `node` needs of the task and the inputs."""
    return cast(tuple[Need, ...], getattr(class_of(node), "needs", ()))


def batch_type_of(node: Any) -> type | None:
    """Which batches the class of `node` makes, or trains on; None where it does not say."""
    return getattr(class_of(node), "batch_type", None)


def is_ours(model: Any) -> bool:
    """Whether the network of this `model` node is our own backbone."""
    return getattr(class_of(model), "library", None) == OURS


def is_of_transformers(model: Any) -> bool:
    """Whether `transformers` makes the network of this `model` node."""
    return getattr(class_of(model), "library", None) == TRANSFORMERS


def asks_a_model(reward: Any) -> bool:
    """Whether the reward of this node asks a trained model of its own: the stage's input of its name."""
    return "name" in reward and hasattr(class_of(reward), "part_of_model")


def line_of(table: Mapping[type, Line], target: Any) -> Line | None:
    """The line of `target` in a table by class: its own, or that of its nearest base class; None where there is none."""
    bases = target.__mro__ if isinstance(target, type) else ()
    return next((table[base] for base in bases if base in table), None)
