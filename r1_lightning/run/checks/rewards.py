"""Rules of rewards: they must fit the form of completions, the task's answers, the objective, and the stage's inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object

from r1_lightning.rewards.judges import OPTIONS, accuracy_class
from r1_lightning.run.config.declarations import asks_a_model, class_of
from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.types.errors import require, require_choice


def check_rewards(plain: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for the first of these rules that a resolved configuration breaks."""
    check_forms(plain)
    check_judges(plain)
    _check_supervision(plain)
    _check_value_model(plain)
    _check_models("reward", plain.get("reward"), (plain.get("stage") or {}).get("inputs") or {})


def check_forms(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a reward reads another form of completions than the task's template asks for."""
    name = (plain.get("task") or {}).get("template")
    if plain.get("reward") and name is not None:
        require_choice("task.template", name, TEMPLATES)
        _check_form("reward", plain["reward"], name)


def check_judges(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if the run's accuracy reward cannot judge the task's answers (`rewards.judges`).

    A stage with rewards of its own (`own_rewards` names the field) uses no other.
    """
    task, stage = plain.get("task") or {}, plain.get("stage") or {}
    judge, template = str(task.get("judge") or ""), TEMPLATES.get(str(task.get("template")))
    own = getattr(class_of(stage), "own_rewards", None)
    if own is not None:
        reward = plain.get("reward")
        shown = None if not isinstance(reward, Mapping) else reward.get("_target_", reward)
        allowed = f"{stage['_target_'].rpartition('.')[2]} reads stage.{own} and no reward; leave it out"
        require(not reward, "reward", shown, allowed)
        for form, node in (stage.get(own) or {}).items() if judge else ():
            target = f"stage.{own}.{form}" + (".other" if isinstance(node, Mapping) and "other" in node else "")
            remedy = f"set {target}._target_={_class_of(accuracy_class(judge))}"
            _require_judge(f"stage.{own}.{form}", _judges_in(node), judge, remedy)
    elif judge and template and isinstance(plain.get("reward"), Mapping):
        option = OPTIONS.get(template.form, {}).get(judge)
        remedy = (
            f"use reward={option}"
            if option
            else f"set reward.rewards.accuracy._target_={_class_of(accuracy_class(judge))}"
        )
        _require_judge("reward", _judges_in(plain["reward"]), judge, remedy)


def _require_judge(field: str, found: set[str], judge: str, remedy: str) -> None:
    allowed = f"the answers of this task are judged by {judge} (task.judge); {remedy}"
    require(not found or judge in found, field, " and ".join(sorted(found)), allowed)


def _judges_in(node: Any) -> set[str]:
    """Return the names of the judges of all rewards in `node`."""
    items = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    found = {judge for item in items for judge in _judges_in(item)}
    if isinstance(node, Mapping) and "_target_" in node:
        found |= set(getattr(get_object(node["_target_"]), "judges", ()))
    return found


def _class_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


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
    """A model-based reward must have the same name as the stage input that provides its model."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        _check_models(f"{path}.{key}", value, roles)
    if isinstance(node, Mapping) and asks_a_model(node):
        name, known = node["name"], ", ".join(sorted(roles)) or "nothing"
        allowed = f"it asks a model, and stage.inputs names {known}; add stage.inputs.{name}"
        require(name in roles, f"{path}.name", name, allowed)


def _check_supervision(plain: Mapping[str, Any]) -> None:
    """Process supervision needs a ratio per token, and no other estimator of advantages, which would see outcomes alone."""
    if not (plain.get("reward") or {}).get("steps"):
        return
    advantages = (plain.get("rollout") or {}).get("advantages")
    allowed = "with reward.steps (process supervision) leave it out: steps are compared within their group"
    require(advantages is None, "rollout.advantages", advantages, allowed)
    objective = (plain.get("stage") or {}).get("objective") or {}
    inner = objective.get("objective") or objective  # importance sampling wraps another objective
    target = inner.get("_target_") if isinstance(inner, dict) else None
    if target is not None:
        level = getattr(get_object(target), "level", "token")
        allowed = "with reward.steps (process supervision) it must have a ratio per token, as TokenLevelGRPO has"
        require(level == "token", "stage.objective._target_", target, allowed)


def _check_value_model(plain: Mapping[str, Any]) -> None:
    """A stage that trains a value model and an estimator of advantages that asks one need each other."""
    stage, advantages = plain.get("stage"), (plain.get("rollout") or {}).get("advantages")
    trains, asks = getattr(class_of(stage), "trains_value_model", False), _asks_value_model(advantages)
    shown = advantages.get("_target_") if isinstance(advantages, Mapping) else advantages
    allowed = "stage=ppo trains a value model, so it must be r1_lightning.rollout.value_baseline.ValueBaseline"
    require(asks or not trains, "rollout.advantages", shown, allowed)
    require(trains or not asks, "rollout.advantages", shown, "it asks a value model, and only stage=ppo has one")


def _asks_value_model(advantages: Any) -> bool:
    return isinstance(advantages, Mapping) and getattr(class_of(advantages), "needs_value_model", False)
