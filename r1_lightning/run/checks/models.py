"""Rules between the model and its users: lengths of rows, requirements of samplers, and consequences of adapters.

They are checked before the base is trained (which has the same model), together with the installed libraries.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from r1_lightning.model.attention import KINDS, AttentionKind
from r1_lightning.model.lora import require_peft
from r1_lightning.rollout.mtp_drafts import check_forgets
from r1_lightning.run.config.declarations import class_of
from r1_lightning.stages.reference import refuse_refresh
from r1_lightning.types.errors import require


def check_model(plain: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for the first of these rules that a resolved configuration breaks."""
    _check_row_lengths(plain)
    _check_replay(plain)
    _check_drafts(plain)
    _check_exportable(plain)
    _check_lora(plain)


def _check_row_lengths(plain: Mapping[str, Any]) -> None:
    model = plain.get("model") or {}
    if "_target_" not in model:
        return
    parameter = inspect.signature(get_object(model["_target_"])).parameters.get("max_positions")
    longest = model.get("max_positions", parameter.default if parameter else None)
    longest = (model.get("hf_config") or {}).get("max_position_embeddings", longest)
    for group in ("rollout", "data"):
        length = (plain.get(group) or {}).get("row_tokens")
        if isinstance(length, int) and isinstance(longest, int):
            allowed = f"it must be at most model.max_positions={longest}"
            require(length <= longest, f"{group}.row_tokens", length, allowed)


def _check_replay(plain: Mapping[str, Any]) -> None:
    """Routing replay needs our own sampler: another engine does not record the experts that it chose."""
    router = (plain.get("stage") or {}).get("router")
    if "hf_config" in (plain.get("model") or {}):
        require(router != "replay", "stage.router", router, "model=hf has no routes to replay")
    sampler = _sampler_target(plain)
    if sampler is not None and not getattr(sampler, "records_routes", False):
        require(
            router != "replay", "stage.router", router, "with rollout.sampler there is no record of the experts chosen"
        )


def _check_drafts(plain: Mapping[str, Any]) -> None:
    """Drafting needs an MTP module and a cache that can forget; checked now, because the base would have the same model."""
    model = plain.get("model") or {}
    depth = model.get("mtp_depth")
    if getattr(_sampler_target(plain), "drafts", False):
        check_forgets(_attention_kinds(model))
        require(depth != 0, "model.mtp_depth", depth, "rollout=mtp_drafts needs an MTP module to draft with")


def _check_exportable(plain: Mapping[str, Any]) -> None:
    """An engine (vLLM) reads the model in the form of `transformers`."""
    if getattr(_sampler_target(plain), "is_engine", False):
        for kind in _attention_kinds(plain.get("model") or {}):
            require(kind.hf_refusal is None, "model.attention_kind", kind.name, f"rollout=vllm: {kind.hf_refusal}")


def _attention_kinds(model: Mapping[str, Any]) -> list[AttentionKind]:
    """What `attention_kind` names, an object of the table or a class with settings; empty where a model has no such field."""
    kind = model.get("attention_kind")
    if kind is None:
        return []
    return [get_object(kind["_target_"]) if isinstance(kind, Mapping) else KINDS[kind]]


def _sampler_target(plain: Mapping[str, Any]) -> Any:
    """Return the target of `rollout.sampler`; None for our plain sampler."""
    return class_of((plain.get("rollout") or {}).get("sampler"))


def _check_lora(plain: Mapping[str, Any]) -> None:
    """With adapters the base is the reference, which cannot be refreshed; and the sampler has no dropout."""
    model, stage = plain.get("model") or {}, plain.get("stage") or {}
    lora = model.get("lora")
    if not lora:
        return
    refuse_refresh(stage.get("reference_refresh_steps", 0))
    dropout = lora.get("dropout", 0.0)
    allowed = "it must be 0 with rollouts: the policy that trains would not be the one that sampled"
    require(dropout == 0 or not plain.get("rollout"), "model.lora.dropout", dropout, allowed)


def check_installed(config: DictConfig) -> None:
    """Raise `InvalidInput` if a library that the model or the sampler needs is missing."""
    if (config.get("model") or {}).get("lora") is not None:
        require_peft()
    check = getattr(class_of((config.get("rollout") or {}).get("sampler")), "check_installed", None)
    if check is not None:
        check()
