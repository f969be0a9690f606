"""What the rows of a task must give a stage, found out before anything is made: this is the first time that rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from r1_lightning.data.chat_data import ChatDataModule
from r1_lightning.data.pretrain_data import PretrainDataModule
from r1_lightning.rollout.rejection_sampling import accuracy_and_form
from r1_lightning.run.chat_rules import check_examples
from r1_lightning.run.rules import MAX_HELD_OUT, NEEDS, evaluation_settings
from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.text.reasoning_format import R1_ZERO_FORM
from r1_lightning.types.errors import InvalidInput, require


def _learns_from_documents(data: Mapping[str, Any]) -> bool:
    return "traces" in data and data.get("on_policy_fraction") != 1


def _check_rewriting(config: DictConfig, judges_form: bool) -> None:
    rewrite_as = config.stage.get("rewrite_as")
    if rewrite_as is not None:
        written = TEMPLATES[config.task.template].form
        allowed = f"it rewrites {R1_ZERO_FORM}, and with task.template={config.task.template} samples are of the form {written}"
        require(written == R1_ZERO_FORM, "stage.rewrite_as", rewrite_as, allowed)
        require(
            judges_form,
            "stage.rewrite_as",
            rewrite_as,
            "it needs a reward named format, which says what can be rewritten",
        )


def check_task(config: DictConfig) -> None:
    """Raise `InvalidInput` where the task cannot give what the stage trains on, or too few held-out problems for its evaluation.

    This is the first time that rows are read: files that are missing or broken end here, before any input is made.
    """
    source = instantiate(config.task.source, _convert_="all")
    data = (config.get("data") or {}).get("_target_")
    module = None if data is None else get_object(data)
    if module is ChatDataModule:
        check_examples(config)
    if config.stage.get("_target_") in NEEDS:
        _, form = accuracy_and_form(instantiate(config.reward, _convert_="all"))
        _check_rewriting(config, form is not None)
    if config.get("rollout"):
        source.train_problem(config.seed, 0)
    node: Mapping[str, Any] = config.get("data") or {}
    if node.get("traces"):
        instantiate(node["traces"]).traces()
    elif module is PretrainDataModule or _learns_from_documents(node):
        next(iter(source.documents(config.seed, 0, 1)), None)
    settings = evaluation_settings(config)
    if settings is None:
        return
    require(
        settings.problems <= MAX_HELD_OUT, "stage.evaluation.problems", settings.problems, f"at most {MAX_HELD_OUT}"
    )
    try:
        source.held_out_problems(settings.problems)
    except InvalidInput as error:
        raise InvalidInput(f"stage.evaluation.problems: {error}") from error
