"""Rules of fine-tuning and of forms: where examples come from, how long training takes, and that all speak of one form."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.types.errors import require, require_choice

DATA = "data"  # the stage's input that holds a data set


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
                form == wanted,
                f"{path}.form",
                form,
                f"task.template={template} asks for completions of the form {wanted}",
            )


def check_length(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput where neither steps nor passes over the data say how long to train."""
    stage, data = plain.get("stage") or {}, plain.get("data") or {}
    if data and "max_steps" in stage and stage["max_steps"] is None:  # a stage without data trains nothing
        allowed = "it must be a whole number" + (", or set data.epochs" if "epochs" in data else "")
        require(data.get("epochs") is not None, "stage.max_steps", None, allowed)


def check_examples(config: DictConfig) -> None:
    """Raise InvalidInput where examples for fine-tuning come from nowhere, or from two places; a file is read by the fingerprint,
    before anything is made."""
    examples = instantiate(config.data.examples, _convert_="all")
    given = DATA in config.stage.inputs
    place = config.data.examples.get("file") or config.data.examples.get("hub")
    require(not (given and examples.is_named), "data.examples.file", place, f"the stage has an input {DATA!r} as well")
    if not given:
        _ = examples.content_version if examples.is_named else examples.read()
