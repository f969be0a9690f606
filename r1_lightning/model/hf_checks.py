"""What a model of `transformers` must be so that `HFBackbone` may call it, read from its configuration and from one call.

Losses here take hidden states and the head: logits are the head's product, or that times a constant. Masks and positions are ours:
attention sees all earlier positions of a document, and a rotary frequency does not depend on what else is in the batch. A model
that is otherwise is refused in one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from r1_lightning.types.errors import require, require_number


def still(config: Any) -> None:
    """Set dropout to 0, because sampler and trainer would draw different masks; unset the pad token."""
    for name, value in vars(config).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    config.pad_token_id = None  # with one, `nn.Embedding` gives its row no gradient, and pad may also be EOS


def refuse_caps(kind: Any, config: Any) -> None:
    """Refuse capped logits and attention (Gemma 2) before the model is made: `transformers` would raise an error of its own."""
    caps = {name: getattr(config, name, None) for name in ("final_logit_softcapping", "attn_logit_softcapping")}
    found = [f"{name}={value}" for name, value in caps.items() if value is not None]
    if found and "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        found.append(f"sliding_window={getattr(config, 'sliding_window', None)}")
    allowed = f"capped logits and attention ({', '.join(found)}) are not supported"
    require(not found, "model_type", kind, allowed)


def logit_factor(config: Any) -> float:
    """The constant that the logits are multiplied by: Granite divides by `logits_scaling`, Cohere multiplies by `logit_scale`."""
    factors = {name: getattr(config, name, None) for name in ("logits_scaling", "logit_scale")}
    for name, value in factors.items():
        if value is not None:
            require_number(name, value, 0.0, open_minimum=True)
    return float(factors["logit_scale"] or 1.0) / float(factors["logits_scaling"] or 1.0)


class _Given:
    """The output of a decoder that ran no layer: hidden states, and None for everything else."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, place: int) -> Tensor:
        return (self.last_hidden_state,)[place]


@contextmanager
def decoder_gives(decoder: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Within the block, `decoder` runs no layer and returns `hidden`."""
    decoder.forward = lambda *args, **kwargs: _Given(hidden)
    try:
        yield
    finally:
        del decoder.forward  # the class's own again


def refuse_windows(config: Any) -> None:
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    require(not kinds, "layer_types", kinds, "only layers of full attention are supported")
    longest = getattr(config, "max_position_embeddings", 0)
    for name in ("sliding_window", "attention_chunk_size"):
        window = getattr(config, name, None)
        is_used = window is not None and getattr(config, f"use_{name}", True) and window < longest
        require(not is_used, name, window, f"only attention over all {longest} positions is supported")


def refuse_moving_frequencies(model: nn.Module) -> None:
    """Refuse rotary frequencies set by the longest text of a batch: in a packed row, or on a cache, that is another text."""
    for part in model.modules():
        kinds = getattr(part, "rope_type", None)  # by kind of layer in some models
        for kind in kinds.values() if isinstance(kinds, Mapping) else [kinds]:
            allowed = "its frequencies depend on the longest text of a batch, so a packed text gets other log-probs than alone"
            require(
                not (isinstance(kind, str) and ("dynamic" in kind or kind == "longrope")), "rope_type", kind, allowed
            )


def refuse_ignored_positions(model: Any) -> None:
    """Refuse a decoder (BART, Blenderbot) that counts positions itself, from the row's first token, whatever it is told.

    Such a decoder swallows `position_ids` among its `**kwargs`, so that no call fails and every log-prob is wrong.
    """
    known = inspect.signature(type(model.get_decoder()).forward).parameters
    allowed = "its decoder takes no position ids, so a packed text gets other log-probs than alone"
    require("position_ids" in known, "model_type", model.config.model_type, allowed)
