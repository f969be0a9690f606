"""Dense students: any causal language model of `transformers` as a `Backbone` (R1 section 4: Qwen2.5, Llama 3).

The model is `transformers`' own class, made from a `config.json` alone: no code of a checkpoint is ever run. We call it in three
unusual ways:

- packed rows: every document of a row attends to itself only (`model/hf_attention.py`), and its positions begin at 0 again;
- sampling: prompts are padded on the left and rows leave the batch, so we keep masks and positions, and `transformers`' cache
  keeps keys and values;
- losses: they take hidden states and the head, so logits must be the head's product and nothing else. A constant factor of the
  logits (Granite, Cohere) therefore goes into the hidden states. Both are checked once, when the model is made, and models that
  cap their logits are refused. So are sliding windows, which our mask would undo, rotary frequencies that depend on the
  length of the batch (dynamic NTK, LongRoPE), and decoders that count positions themselves (BART).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from r1_lightning.functional.shards import local
from r1_lightning.model.continued_rows import folded, unfolded
from r1_lightning.model.hf_attention import new_columns_mask, packed_mask, take_documents
from r1_lightning.model.hf_cache import HFCache
from r1_lightning.model.hf_checks import (
    decoder_gives,
    logit_factor,
    refuse_caps,
    refuse_ignored_positions,
    refuse_moving_frequencies,
    refuse_windows,
    still,
)
from r1_lightning.model.init import DrawnOnCPU
from r1_lightning.model.language_model import LanguageModel
from r1_lightning.model.lora import LoraSettings, add_adapters, base_state
from r1_lightning.model.precision import PlainPrecision, Precision, compute_type
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# Shape legend: B rows, T positions, R rows being sampled, S cached positions, D model width.

NOT_OF_THE_MODEL = ("auto_map", "quantization_config", "torch_dtype", "dtype", "transformers_version")
CHECKED_TOKENS = 4
MAX_HEAD_DIFFERENCE = 1e-4  # of the largest logit
CHECKED_STD = 10.0  # of the hidden states: logits of a few units, where a cap would show


@dataclass(frozen=True)
class HFModelConfig:
    """`hf_config` holds the fields of the checkpoint's `config.json`; `run` fills it in from `init_from`.

    With `lora` the checkpoint's weights are frozen, and only adapters train (see `model.lora`).
    """

    hf_config: Mapping[str, Any] | None = None
    lora: LoraSettings | None = None
    library = "transformers"  # what makes the network; no field

    def __post_init__(self) -> None:
        is_lora = self.lora is None or isinstance(self.lora, LoraSettings)
        allowed = f"it must be null, or name _target_: {LoraSettings.__module__}.LoraSettings; model=hf_lora does"
        require(is_lora, "model.lora", self.lora, allowed)

    def fields(self) -> dict[str, Any]:
        """Return the fields that describe the model. Raises InvalidInput if no checkpoint has been named."""
        if self.hf_config is None:
            raise InvalidInput("model=hf is not allowed without init_from=FOLDER: the checkpoint describes the model")
        return {name: _plain(value) for name, value in self.hf_config.items() if is_of_the_model(name)}

    @property
    def max_positions(self) -> int:
        """The longest row in tokens."""
        found = self.fields().get("max_position_embeddings")
        require(isinstance(found, int), "max_position_embeddings", found, "config.json must give it, in tokens")
        return int(found or 0)


class HFBackbone(LanguageModel):
    """A causal language model of `transformers` that fits the Protocols `Backbone` and `Balanced`; it has no experts to balance.

    Weights are drawn from `seed`. With `is_drawn=False` they are uninitialised memory; the caller then loads a checkpoint and calls
    `check_head`. Raises InvalidInput for a model that cannot be called in the three ways above.
    """

    def __init__(
        self, config: HFModelConfig, precision: Precision | None = None, seed: int = 0, is_drawn: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.precision = precision or PlainPrecision()
        require(not self.precision.static_shapes, "precision.compile", True, "it is for our own backbone, not model=hf")
        backend = getattr(self.precision, "backend", None)
        require(backend is None, "precision.backend", backend, "FP8 is for our own backbone, not model=hf")
        self.model = _make(config.fields(), seed, is_drawn)
        self.takes_documents = take_documents(self.model)
        is_plain = isinstance(self.head, nn.Linear) and self.head.bias is None
        require(is_plain, "model", type(self.model).__name__, "its output head must be a matrix")
        refuse_ignored_positions(self.model)
        refuse_moving_frequencies(self.model)
        self.logit_factor = logit_factor(self.model.config)
        if is_drawn and self.head.weight.device.type != "meta":
            self.check_head()
        if config.lora is not None:
            add_adapters(self.model, config.lora, seed)

    @property
    def decoder(self) -> nn.Module:
        """The model without its head. A property, because an attribute would register its weights under a second name."""
        decoder: nn.Module = self.model.get_decoder()
        return decoder

    @property
    def head(self) -> nn.Linear:
        head: nn.Linear = self.model.get_output_embeddings()
        return head

    def recompute_blocks(self) -> None:
        """See `LanguageModel`; InvalidInput if the family's class cannot do it.

        Only adapters may have dropout; then the random state is kept, so that a layer draws the same masks again.
        """
        able, kind = getattr(self.model, "supports_gradient_checkpointing", False), type(self.model).__name__
        require(able, "trainer.recompute", True, f"{kind} of transformers cannot compute its layers again")
        self.recompute = True
        draws = self.config.lora is not None and self.config.lora.dropout > 0
        settings = {"use_reentrant": False, "preserve_rng_state": draws}
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)

    @torch.no_grad()
    def check_head(self) -> None:
        """Raise InvalidInput if the logits are not the head's product, as every loss here assumes.

        Random hidden states stand in for the decoder's, so that the check costs one product however many layers there are. Of a
        head whose rows are divided over processes each checks its own.
        """
        weight = local(self.head.weight)
        if not weight.numel():
            return
        drawn = torch.randn(1, CHECKED_TOKENS, weight.shape[1], generator=torch.Generator().manual_seed(0))
        hidden = (CHECKED_STD * drawn).to(weight)
        ids = torch.arange(CHECKED_TOKENS, device=weight.device)[None]
        with decoder_gives(self.decoder, hidden):
            name = next(name for name, parameter in self.model.named_parameters() if parameter is self.head.weight)
            found = functional_call(self.model, {name: weight}, (ids,), {"use_cache": False}).logits
        logits = F.linear(self.scaled(hidden), weight)
        allowed = "its logits are more than its head's product (scaled or capped); such models are not supported"
        is_product = (found - logits).abs().max() <= MAX_HEAD_DIFFERENCE * logits.abs().max()
        require(bool(is_product), "model", type(self.model).__name__, allowed)

    def scaled(self, hidden: Tensor) -> Tensor:
        """The decoder's hidden states times the constant factor of the logits, so that the head's product is the logits."""
        return hidden if self.logit_factor == 1.0 else hidden * self.logit_factor

    def hidden(self, batch: TokenBatch, with_mtp: bool = True, replayed_LBTK: Tensor | None = None) -> BackboneOutput:
        """Packed rows to normed hidden states B x T x D. There is no MTP module and no expert to replay."""
        require(replayed_LBTK is None, "stage.router", "replay", "model=hf has no routes to replay")
        if batch.prefix_ids is None or self.takes_documents:
            return self._hidden(batch)
        plain, _, back_BT = unfolded(batch, None)  # attention of its own may count places in the row
        return folded(self._hidden(plain), back_BT)

    @property
    def continues_documents(self) -> bool:
        """Whether completions that share a prompt are computed behind one copy of it."""
        return self.takes_documents

    def _hidden(self, batch: TokenBatch) -> BackboneOutput:
        """`hidden` of rows as they are."""
        with self.precision.autocast(batch.token_ids.device.type):
            output = self.decoder(
                input_ids=batch.token_ids,
                attention_mask=packed_mask(batch.document_ids, self.takes_documents, batch.prefix_ids),
                position_ids=batch.position_ids,
                use_cache=False,
            )
        return BackboneOutput.dense(self.scaled(output.last_hidden_state))

    def new_cache(self, rows: int, max_tokens: int) -> HFCache:
        """An empty cache for `rows` sequences of at most `max_tokens` tokens each, until it grows."""
        return HFCache(rows, max_tokens, self.head.weight.device)

    def step(self, token_ids: Tensor, is_token: Tensor, cache: HFCache) -> BackboneOutput:
        """The newest T tokens of R rows (left-padded, `is_token` R x T) to hidden R x T x D; fills the cache."""
        is_one = token_ids.shape[1] == 1
        with self.precision.autocast(token_ids.device.type):
            position_ids, attend_R1TS = cache.advance(is_token, has_rows=self.takes_documents)

            def step(ids: Tensor, positions: Tensor, seen: Any, tokens: Tensor, columns: Any) -> tuple[Tensor, ...]:
                cache.columns = columns
                output = self.decoder(
                    input_ids=ids,
                    attention_mask=new_columns_mask(seen, tokens, compute_type(ids.device.type)),
                    position_ids=positions,
                    past_key_values=cache.keys_and_values,
                    use_cache=True,
                )
                return (self.scaled(output.last_hidden_state),)

            inputs: tuple[Any, ...] = (token_ids, position_ids, attend_R1TS, is_token, cache.newest(token_ids.shape[1]))
            found = cache.run(step, *inputs) if is_one else step(*inputs)
        return BackboneOutput.dense(found[0])

    def expert_bias(self) -> Tensor:
        return torch.zeros((0, 0), device=self.head.weight.device)

    def set_expert_bias(self, bias_LE: Tensor) -> None:
        """There is none."""


def hf_model_views(backbone: HFBackbone) -> dict[str, tuple[Tensor, ...]]:
    """Return, by the name of each stored tensor, the weights that it fills; a tied head is not stored, adapters are left out."""
    state = backbone.model.state_dict()
    if backbone.config.lora is not None:
        state = base_state(state)
    return {name: (tensor,) for name, tensor in state.items() if not is_copy(backbone, name)}


def is_copy(backbone: HFBackbone, name: str) -> bool:
    """True if a stored tensor is redundant: a tied head, or the rotary frequencies in older files."""
    is_tied = backbone.head.weight is backbone.model.get_input_embeddings().weight
    return (is_tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq")


def is_of_the_model(name: str) -> bool:
    """True if a field of `config.json` describes the model; the others are notes of the library that wrote it."""
    return name not in NOT_OF_THE_MODEL and not name.startswith("_")


def _plain(value: Any) -> Any:
    """Return `value` with dict and list in place of the configuration's own mappings and sequences."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _make(fields: dict[str, Any], seed: int, is_drawn: bool) -> Any:
    """Make the `transformers` model, with weights drawn from `seed`, uninitialised, or on the meta device without memory."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    kind = fields.get("model_type")
    try:
        config = AutoConfig.for_model(kind, **{name: value for name, value in fields.items() if name != "model_type"})
        still(config)
        refuse_caps(kind, config)
        with torch.random.fork_rng(devices=[]), DrawnOnCPU() if is_drawn else no_init_weights():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
            )
    except InvalidInput:
        raise
    except Exception as error:  # each configuration class raises its own kinds of errors
        line = " ".join(str(error).split())[:300]
        raise InvalidInput(
            f"model_type={kind!r} is not allowed: transformers makes no causal language model of it ({line})"
        ) from error
    model.tie_weights()
    refuse_windows(config)
    return model
