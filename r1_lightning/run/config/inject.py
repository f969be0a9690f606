"""Instantiates a configuration node and passes it, by argument name, objects that YAML cannot hold.

A YAML node with a `_target_` names a class; its leaves are keyword arguments. An object that YAML cannot hold (the tokenizer, the
policy, the sampler) is passed to every target whose signature asks for it by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from r1_lightning.run.config.keys import GRAPH_KEYS
from r1_lightning.types.errors import InvalidInput


def inject(node: DictConfig, parts: Mapping[str, Any]) -> Any:
    """Instantiate `node` with those of `parts` that its target's signature names and YAML does not set.

    Raises our `InvalidInput` itself, not Hydra's exception around it.
    """
    wanted = inspect.signature(get_object(node["_target_"])).parameters
    given = {name: part for name, part in parts.items() if name in wanted and node.get(name) is None}
    leaves = {key: value for key, value in node.items() if key not in (*GRAPH_KEYS, "evaluation")}
    # Resolved here: outside of the whole configuration `${paths.data}` could not be resolved.
    plain = {key: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for key, v in leaves.items()}
    try:
        # Parts are passed to the partial, not to Hydra, which would try to turn them into configurations.
        return instantiate(OmegaConf.create(plain), _partial_=True)(**given)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InvalidInput):
                raise cause from error
            cause = cause.__cause__
        raise
