"""The DeepSeek-V3-style backbone of every stage: embedding, blocks, final norm, head, MTP modules.

Stages use it through the `Backbone` Protocol of `types/tensors.py`: `hidden` for packed training rows, `step` with a latent
cache for sampling, `unembed` for logits. Losses take hidden states and the head separately, so that logits, the largest tensor
of all, are computed only for the positions that a loss needs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from r1_lightning.functional.logprobs import EAGER_TILES, Tiles
from r1_lightning.functional.masking import times_meant
from r1_lightning.model.attention import kinds_by_name, mtp_kind
from r1_lightning.model.block import Block
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.continued_rows import OWN_PROMPT_TOKENS, folded, unfolded
from r1_lightning.model.init import init_weights
from r1_lightning.model.kv_cache import LatentKVCache
from r1_lightning.model.language_model import LanguageModel
from r1_lightning.model.moe import RoutingStats
from r1_lightning.model.mtp import MTPModule, shift_left
from r1_lightning.model.norm import RMSNorm
from r1_lightning.model.precision import PlainPrecision, Precision, compute_type
from r1_lightning.model.rope import rotary_tables
from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# Shape legend: B rows, T positions, R rows being sampled, S cached positions, D model width, L layers with experts.


class DeepSeekBackbone(LanguageModel):
    """Attention (MLA, or another kind of `model/attention.py`) + DeepSeekMoE + MTP.

    Its weights are drawn from `seed`; load a checkpoint over them to continue from it.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig, precision: Precision | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.precision = precision or PlainPrecision()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(
            Block(config, self.precision, is_dense=i < config.n_dense_layers, layer=i) for i in range(config.n_layers)
        )
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = self.precision.linear(config.d_model, config.vocab_size, fp8_eligible=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        self.mtp_modules = nn.ModuleList(MTPModule(config, self.precision) for _ in range(config.mtp_depth))
        self.attention_kinds, self.mtp_kind = kinds_by_name(config), mtp_kind(config)
        rotary_width = self.mtp_kind.rotary_width(config)  # no other kind of the model rotates
        cos, sin = rotary_tables(config.max_positions, rotary_width, config.rope_theta, config.yarn)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        init_weights(self, config.init_std, seed)
        self.run_steps = self.precision.compiled(_run_steps)
        # Whether a step may run twice: a recurrent state would take its token twice.
        self.repeats_steps = not any(kind.is_recurrent for kind in self.attention_kinds.values())
        self.tiles = Tiles(*map(self.precision.compiled, EAGER_TILES))

    def recompute_blocks(self) -> None:
        """See `LanguageModel`; MTP modules' blocks are among them."""
        self.recompute = True
        for part in self.modules():
            if isinstance(part, Block):
                part.recompute = True

    def hidden(
        self,
        batch: TokenBatch,
        with_mtp: bool = True,
        replayed_LBTK: Tensor | None = None,
        mtp_detached: bool = False,
    ) -> BackboneOutput:
        """Packed rows to normed hidden states B x T x D, attention staying within each document.

        `replayed_LBTK` are routes for the L mixtures of the trunk; where they are -1 the router chooses. With `mtp_detached` no
        gradient flows from the MTP modules into trunk and embedding.
        """
        if batch.prefix_ids is None or self._continues(with_mtp):
            return self._hidden(batch, with_mtp, replayed_LBTK, mtp_detached)
        plain, replayed_LBTK, back_BT = unfolded(batch, replayed_LBTK)
        return folded(self._hidden(plain, with_mtp, replayed_LBTK, mtp_detached), back_BT)

    def _hidden(
        self, batch: TokenBatch, with_mtp: bool, replayed_LBTK: Tensor | None, mtp_detached: bool
    ) -> BackboneOutput:
        """`hidden` of rows as they are; not `hidden` itself, around which sharding gathers the weights."""
        counted = batch.is_token
        if batch.prefix_ids is not None:  # a shared prompt counts in the experts' load as often as in the plain layout
            counted = times_meant(batch.document_ids, batch.prefix_ids)
        with self.precision.autocast(batch.token_ids.device.type):
            cos, sin = self.cos[batch.position_ids], self.sin[batch.position_ids]
            masks = {
                name: kind.row_mask(batch.document_ids, batch.prefix_ids) for name, kind in self.attention_kinds.items()
            }
            embedded = self.embedding(batch.token_ids)
            x, collected = embedded, []
            blocks = [cast(Block, block) for block in self.blocks]
            mixtures = [block for block in blocks if not block.is_dense]
            replayed = {} if replayed_LBTK is None else dict(zip(mixtures, replayed_LBTK, strict=True))
            for block in blocks:
                x, stats = block(x, cos, sin, masks[block.attention_kind], counted, replayed.get(block))
                collected.append(stats)
            x = self.norm(x)
            mtp, previous = [], x.detach() if mtp_detached else x
            embedded = embedded.detach() if mtp_detached else embedded
            for depth, module in enumerate(self.mtp_modules if with_mtp else (), start=1):
                ahead = shift_left(embedded, depth)
                previous, stats = module(previous, ahead, cos, sin, masks[self.mtp_kind.name], counted)
                mtp.append(previous)
                collected.append(stats)
        return _output(tuple(mtp), *_stacked(x, collected))

    @property
    def continues_documents(self) -> bool:
        """Whether completions that share a prompt are computed behind one copy of it, whatever the stage's MTP loss."""
        return self._continues(with_mtp=True)

    def _continues(self, with_mtp: bool) -> bool:
        """Whether documents can continue others: not into a recurrent state, nor where an MTP module looks beyond the second token.

        Behind a prefix stand the next tokens of one of the documents that continue it; `rollout.shared_prompts` leaves so many of
        the prompt to each completion that they are the same for one module.
        """
        recurrent = any(kind.is_recurrent for kind in self.attention_kinds.values())
        return not recurrent and (not with_mtp or len(self.mtp_modules) < OWN_PROMPT_TOKENS)

    def new_cache(self, rows: int, max_tokens: int) -> LatentKVCache:
        """An empty latent cache for `rows` sequences of at most `max_tokens` tokens each, until it grows."""
        return self._cache_of(list(self.blocks), rows, max_tokens)

    def new_mtp_cache(self, rows: int, max_tokens: int) -> LatentKVCache:
        """An empty latent cache for the first MTP module, which has one layer; `step_mtp` fills it."""
        return self._cache_of([cast(MTPModule, self.mtp_modules[0]).block], rows, max_tokens)

    def _cache_of(self, layers: list[Any], rows: int, max_tokens: int) -> LatentKVCache:
        device = self.embedding.weight.device
        kind = "cpu" if device.type == "meta" else device.type  # a meta model is only counted
        with self.precision.decoding(kind):
            dtype = compute_type(kind)  # the type of the latents as their projection returns them
        states = [block.attention.new_state(rows, max_tokens, dtype, device) for block in layers]
        return LatentKVCache(states, rows, max_tokens, device)

    def step(self, token_ids: Tensor, is_token: Tensor, cache: LatentKVCache) -> BackboneOutput:
        """The newest T tokens of R rows (left-padded, `is_token` R x T) to hidden R x T x D; fills the cache."""
        is_one = token_ids.shape[1] == 1
        with self.precision.decoding(token_ids.device.type):
            position_ids, attend = cache.advance(is_token)
            start = cache.newest(token_ids.shape[1])
            # Prompts run eagerly: there is one prefill per wave, and the compiler would build a second graph for it.
            run = self.run_steps if is_one else _run_steps

            def step(ids: Tensor, positions: Tensor, seen: Any, tokens: Tensor, columns: Any) -> tuple[Tensor, ...]:
                dtype = compute_type(ids.device.type)
                kinds = self.attention_kinds.items()
                masks = {name: kind.new_columns_mask(self.config, tokens, seen, dtype) for name, kind in kinds}
                x, collected = run(self, ids, positions, masks, tokens, cache.states, columns)
                return _stacked(x, collected)

            inputs: tuple[Any, ...] = (token_ids, position_ids, attend, is_token, start)
            found = cache.run(step, *inputs) if is_one and self.repeats_steps else step(*inputs)
        return _output((), *found)

    @property
    def mtp_depth(self) -> int:
        """How many MTP modules there are."""
        return self.config.mtp_depth

    def step_mtp(self, hidden: Tensor, next_ids: Tensor, is_token: Tensor, cache: LatentKVCache) -> Tensor:
        """Module 1's normed output R x T x D at the newest T positions of R rows, as in `hidden(...).mtp[0]`; fills the cache.

        `hidden` R x T x D is the output of `step` at these positions. `next_ids` R x T are the tokens one position ahead, so
        `unembed` of the result predicts the tokens two positions ahead. `is_token` R x T is False where a row has no such pair.
        """
        with self.precision.decoding(next_ids.device.type):
            position_ids, attend = cache.advance(is_token)
            dtype = compute_type(next_ids.device.type)
            mask = self.mtp_kind.new_columns_mask(self.config, is_token, attend, dtype)
            cos, sin = self.cos[position_ids], self.sin[position_ids]
            module = cast(MTPModule, self.mtp_modules[0])
            start = cache.newest(next_ids.shape[1])
            return module.step(hidden, self.embedding(next_ids), cos, sin, mask, is_token, cache.states[0], start)

    def expert_bias(self) -> Tensor:
        """All routers' biases, L x E, in the order of `BackboneOutput.expert_load`."""
        biases = [router.expert_bias for router in self._routers()]
        return torch.stack(biases) if biases else torch.zeros((0, 0), device=self.embedding.weight.device)

    @torch.no_grad()
    def set_expert_bias(self, bias_LE: Tensor) -> None:
        """Write all routers' biases at once (L x E)."""
        for router, bias in zip(self._routers(), bias_LE, strict=True):
            router.expert_bias.copy_(bias)

    def _routers(self) -> list[Any]:
        """The routers that have a bias: none with softmax routing."""
        if self.config.router_scoring == "softmax":
            return []
        blocks: list[Any] = [*self.blocks, *(module.block for module in self.mtp_modules)]
        return [block.feed_forward.router for block in blocks if not block.is_dense]


def _stacked(hidden: Tensor, collected: list[RoutingStats | None]) -> tuple[Tensor, ...]:
    """Hidden states, and where there are mixtures their loads L x E, the sum of balance losses, and routes L x B x T x K."""
    stats = [item for item in collected if item is not None]
    if not stats:
        return (hidden,)
    load, routes = torch.stack([item.load for item in stats]), torch.stack([item.routes for item in stats])
    return hidden, load, torch.stack([item.balance_loss for item in stats]).sum(), routes


def _output(mtp: tuple[Tensor, ...], hidden: Tensor, *statistics: Tensor) -> BackboneOutput:
    return BackboneOutput(hidden, mtp, *statistics) if statistics else BackboneOutput.dense(hidden, mtp)


def _run_steps(
    backbone: DeepSeekBackbone,
    token_ids: Tensor,
    position_ids: Tensor,
    masks: dict[str, Any],
    is_token: Tensor,
    states: list[Tensor],
    start: int | Tensor,
) -> tuple[Tensor, list[RoutingStats | None]]:
    """Run all layers of `DeepSeekBackbone.step`; a plain function, so that it can be compiled as one graph."""
    cos, sin = backbone.cos[position_ids], backbone.sin[position_ids]
    x, collected = backbone.embedding(token_ids), []
    layers: list[Any] = list(backbone.blocks)
    for block, state in zip(layers, states, strict=True):
        x, stats = block.step(x, cos, sin, masks[block.attention_kind], is_token, state, start)
        collected.append(stats)
    return backbone.norm(x), collected
