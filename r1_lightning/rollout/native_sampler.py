"""The default sampler: on a CPU decoding by `native/decode.cpp` where it fits and agrees, by the model itself everywhere else.

A decoding step of a small model is hundreds of torch operators on small tensors, and their overhead takes most of its time. The
native decoder does the whole step and the draws in one call. It is chosen once per sampler, at its first call, if

- it knows the model: MLA and DeepSeekMoE with V3's router without groups, FP32 weights of plain layers, whole, on the CPU,
  and decoding in FP32 (also beside training in BF16, `+precision.decode=fp32`);
- it can be built here (`native_build.py`); and
- it agrees: on a few fixed prompts the log-probs of what it draws are those of the model's own step, within the tolerance that
  the self-check has for FP32 (`model/precision.py:AGREEMENT`).

Otherwise, and with `rollout=eager`, the steps are those of `Sampler`; on a CPU a line says which of the two draws, and why. Draws
are keyed and the distributions equal to within rounding, so both draw the same tokens, save where a uniform number falls within
rounding of the border between two tokens. No number of a row depends on the rows beside it. Prompts run through the model itself,
in either case.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.block import Block
from r1_lightning.model.experts import Experts
from r1_lightning.model.feed_forward import FeedForward
from r1_lightning.model.mla import MLA
from r1_lightning.model.moe import MoE
from r1_lightning.model.norm import RMSNorm
from r1_lightning.model.precision import AGREEMENT, GroupedLinear, PlainPrecision
from r1_lightning.model.router import Router
from r1_lightning.model.whole_copy import COPY
from r1_lightning.rollout.collected import Collected
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.rollout.native_build import NotBuilt, library
from r1_lightning.rollout.native_model import NativeModel, NativeStep, NativeWave
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, device_of, left_padded
from r1_lightning.types.tensors import Backbone, BackboneOutput, Generation

# Shape legend: P prompts, R rows, T new positions, A rows still decoding, L layers with experts, K chosen experts.

# What the model may be made of; anything else, an adapter for one, is left to the model itself.
KNOWN = (nn.ModuleList, nn.Embedding, nn.Linear, Block, MLA, MoE, Router, Experts, FeedForward, GroupedLinear, RMSNorm)
# Weights are held twice while rows are drawn.
MOST_PARAMETERS = 2**28
# The check: prompts of these lengths, each continued twice by so many tokens, more than a block of the cache has columns.
CHECKED_LENGTHS, CHECKED_TOKENS = (3, 18), 18
_said: set[str] = set()  # a process says once of each decoder that it is used
_used: dict[str, None] = {}  # in order, since `used_decoders` was called


def used_decoders() -> dict[str, str]:
    """Return "decoder" and who has decoded since the last call, each once in order; nothing if no default sampler has drawn."""
    found = "; ".join(_used)
    _used.clear()
    return {"decoder": found} if found else {}


def unknown(backbone: Any) -> str:
    """Return why the native decoder does not know `backbone`, or an empty text."""
    if not isinstance(backbone, DeepSeekBackbone):
        return f"it is made for our own network, not for {type(backbone).__name__}"
    config, precision = backbone.config, backbone.precision
    parts = [
        part for root in (backbone.embedding, backbone.blocks, backbone.norm, backbone.head) for part in root.modules()
    ]
    parameters = list(backbone.parameters())
    reasons = {
        "the weights are not on the CPU": device_of(backbone).type != "cpu",
        "the weights are sharded": getattr(backbone, COPY, None) is not None,
        f"precision is {precision.name}": type(precision) is not PlainPrecision or precision.decode != "fp32",
        "a layer's attention is not MLA": any(kind != "mla" for kind in config.attention_kinds),
        "the router is V2's": config.router_scoring != "sigmoid",
        "experts are chosen by groups": config.n_expert_groups > 1,
        "a layer was replaced": any(type(part) not in KNOWN for part in parts),
        "a layer has hooks": any(part._forward_hooks or part._forward_pre_hooks for part in parts),
        "a weight is not FP32": any(x.dtype != torch.float32 for x in parameters),
        f"it has more than {MOST_PARAMETERS:,} parameters": sum(x.numel() for x in parameters) > MOST_PARAMETERS,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


@torch.no_grad()
def disagreement(backbone: Any, model: NativeModel) -> float:
    """Return the largest difference (nats) between log-probs of tokens that `model` draws and those of the model's own step.

    Tokens behind a place that two equal affinities sent to another expert are not compared, in one row at most; infinity if
    there are more such rows. NaN if a log-prob is NaN.
    """
    vocabulary, room = backbone.config.vocab_size, backbone.config.max_positions
    longest = min(CHECKED_LENGTHS[-1], room // 2)
    prompts = [[(1 + 7 * place) % vocabulary for place in range(min(length, longest))] for length in CHECKED_LENGTHS]
    tokens = min(CHECKED_TOKENS, room - longest)
    own, rows = torch.arange(len(prompts)).repeat_interleave(2), torch.arange(2 * len(prompts))
    uniforms = keyed_uniforms(0, rows[:, None], tokens + 1)
    wave, _ = _started(backbone, model, prompts, own, tokens)
    steps = [NativeStep(torch.empty(0), rows % vocabulary, uniforms[:, 0])]  # any first token will do
    for column in range(tokens):
        steps.append(wave.step(rows, steps[-1].token, column, uniforms[:, column + 1], 1.0))
    drawn = torch.stack([step.token for step in steps], 1)
    whole = [prompts[number] + row for number, row in zip(own.tolist(), drawn.tolist(), strict=True)]
    token_ids, is_token = left_padded(whole, 0)
    output = backbone.step(token_ids, is_token, backbone.new_cache(*token_ids.shape))
    logprobs = backbone.unembed(output.hidden[:, -1 - tokens : -1]).log_softmax(-1)
    expected = logprobs.gather(-1, drawn[:, 1:, None]).squeeze(-1)
    differences = (expected - torch.stack([step.logprob for step in steps[1:]], 1)).abs()
    if output.routes.numel() and not differences.isnan().any():
        routes = torch.stack([step.routes for step in steps[1:]], 2)
        other = output.routes[:, :, -1 - tokens : -1].sort(-1).values != routes.sort(-1).values
        behind = other.any(-1).any(0).cumsum(1) > 0
        if int(behind.any(1).sum()) > 1:
            return math.inf
        differences = differences.masked_fill(behind, 0.0)
    return float(differences.max())


def _started(
    backbone: Any, model: NativeModel, prompts: Sequence[Sequence[int]], own: Tensor, limit: int, pad_id: int = 0
) -> tuple[NativeWave, BackboneOutput]:
    """Run the prompts through the model, each once; returns the wave that continues them and the prompts' output."""
    token_ids, is_token = left_padded(prompts, pad_id)
    cache = backbone.new_cache(*token_ids.shape)
    output = backbone.step(token_ids, is_token, cache)
    return NativeWave(model, cache.states, is_token, own, limit), output


class NativeSampler(Sampler):
    """A `Sampler` that draws the same tokens; `decoder` says who computes them, once the first call has chosen."""

    def __init__(self, backbone: Backbone, settings: SamplerSettings) -> None:
        super().__init__(backbone, settings)
        self.decoder = ""
        self.stop = settings.stop
        self._native: NativeModel | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Generation:
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self._native = None  # the weights may change before the next call

    def _wave(
        self, prompts: Sequence[Sequence[int]], own_prompt: Sequence[int], keys: Tensor, limit: int
    ) -> Generation:
        model = self._packed()
        if model is None or max(map(len, prompts)) + limit > model.config.max_positions:
            return super()._wave(prompts, own_prompt, keys, limit)
        wave, output = _started(self.backbone, model, prompts, torch.tensor(own_prompt), limit, self.pad_id)
        return self._decoded(wave, output, keyed_uniforms(self.seed, keys, limit))

    def _packed(self) -> NativeModel | None:
        """The weights as they are in this call; None where the model itself decodes. The first call decides which."""
        if not self.decoder:
            with self.stop.at_once():  # a compiler does not poll
                reason = self._refusal()
            self.decoder = "eager" if reason else "native"
            said = f"by the model itself ({reason})" if reason else "native"
            _used[said] = None
            if self.decoder not in _said and device_of(self.backbone).type == "cpu":
                print(f"decoding on the CPU: {said}", file=sys.stderr, flush=True)
                _said.add(self.decoder)
        if self.decoder == "native" and self._native is None:
            self._native = NativeModel(library(), self.backbone)
        return self._native

    def _refusal(self) -> str:
        if reason := unknown(self.backbone):
            return reason
        try:
            model = NativeModel(library(), self.backbone)
        except NotBuilt as error:
            return str(error)
        found, allowed = disagreement(self.backbone, model), AGREEMENT["fp32"][0]
        return "" if found <= allowed else f"log-probs differ by {found:.1e} nats, more than {allowed:.0e}"

    def _decoded(self, wave: NativeWave, output: BackboneOutput, uniforms: Tensor) -> Generation:
        """Draw the rows of `wave`, the first tokens from the prompts' output, until they end."""
        rows, limit = uniforms.shape
        out, own = Collected.empty(rows, limit, self.pad_id, uniforms.device), wave.prompt_R
        drawn: tuple[Tensor, ...] = self._draw(output.hidden[own, -1], uniforms[:, 0])
        routes = output.routes[:, own, -1]
        records = self.record_routes and bool(routes.numel())
        if records:
            before_last = output.routes[:, :, :-1].masked_fill(~wave.is_token[None, :, :-1, None], -1)
            out.prompt_routes = before_last[:, own]
        active = torch.arange(rows)
        for position in range(limit):
            self.poll()
            if position:
                drawn, routes = self._next(wave, active, drawn[0], position, uniforms[active, position])
            ended, counts = self._has_ended(drawn[0], active, position), torch.ones(len(active), dtype=torch.bool)
            out.write(active, position, counts, drawn, ended)
            if records:
                out.write_routes(active, position, counts, routes[:, :, None])
            active, drawn = active[~ended], tuple(x[~ended] for x in drawn)
            if not len(active):
                break
        return out.generation()

    def _next(
        self, wave: NativeWave, active_A: Tensor, token_A: Tensor, position: int, uniform_A: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Token ids, policy and sampler log-probs of the next token, A each, and the routes L x A x K."""
        if self.config.top_p < 1:  # a nucleus needs all logits of its row
            hidden, routes = wave.hidden(active_A, token_A, position - 1)
            return self._draw(hidden, uniform_A), routes
        step = wave.step(active_A, token_A, position - 1, uniform_A, self.config.sampling_temperature)
        return (step.token, step.logprob, step.logprob), step.routes
