"""Rules between the rewards and what they judge: the form of completions, the objective, the models that they ask."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object

from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.types.errors import require, require_choice


def check_rewards(plain: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for the first of these rules that a resolved configuration breaks."""
    check_forms(plain)
    _check_supervision(plain)
    _check_models("reward", plain.get("reward"), (plain.get("stage") or {}).get("inputs") or {})


def check_forms(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput where a reward reads another form of completions than the task's template asks for."""
    name = (plain.get("task") or {}).get("template")
    if plain.get("reward") and name is not None:
        require_choice("task.template", name, TEMPLATES)
        _check_form("reward", plain["reward"], name)


def _check_form(path: str, node: Any, template: str) -> None:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        _check_form(f"{path}.{key}", value, template)
    if isinstance(node, Mapping) and "_target_" in node:
        parameter = inspect.signature(get_object(node["_target_"])).parameters.get("form")
        if parameter is not None:
            form, wanted = node.get("form", parameter.default), TEMPLATES[template].form
            require(
                form in (wanted, None),
                f"{path}.form",
                form,
                f"task.template={template} asks for completions of the form {wanted}",
            )


def _check_models(path: str, node: Any, roles: Mapping[str, Any]) -> None:
    """A reward that asks a trained model is named after the input of the stage which that model is."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        _check_models(f"{path}.{key}", value, roles)
    named = isinstance(node, Mapping) and "_target_" in node and "name" in node
    if named and hasattr(get_object(node["_target_"]), "part_of_model"):
        name, known = node["name"], ", ".join(sorted(roles)) or "nothing"
        allowed = f"it asks a model, and stage.inputs names {known}; add stage.inputs.{name}"
        require(name in roles, f"{path}.name", name, allowed)


def _check_supervision(plain: Mapping[str, Any]) -> None:
    """One ratio per completion has one advantage: there is nothing that steps could decide."""
    objective = (plain.get("stage") or {}).get("objective") or {}
    inner = objective.get("objective") or objective  # importance sampling stands around another
    target = inner.get("_target_") if isinstance(inner, dict) else None
    if (plain.get("reward") or {}).get("steps") and target is not None:
        level = getattr(get_object(target), "level", "token")
        allowed = "with reward.steps (process supervision) it must have a ratio per token, as TokenLevelGRPO has"
        require(level == "token", "stage.objective._target_", target, allowed)
