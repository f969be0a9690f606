"""Batched sampling with the latent cache: one prefill per prompt, and rows leave the batch when they end.

The sampler stores two log-probs for every token. `policy_logprobs` is that of softmax(logits / sampling_temperature), the policy
that GRPO trains; `sampler_logprobs` is that of the distribution drawn from, which top-p renormalises. Draws are keyed (see
`rollout/keyed_random.py`): token t of a row is the inverse of the cumulative distribution at the row's uniform number t. On a GPU
the distribution is summed in whole numbers, because the order of its sums is not fixed there; on a CPU in floating ones.

The sampler holds the backbone object that is being trained, so no copy can go stale; one that is sharded over processes is gathered
for each call (`model/whole_copy.py`), also for a call without prompts. It works on the device of the backbone's
weights and returns everything on the CPU, where rollouts are judged, shuffled into minibatches and saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from r1_lightning.model.whole_copy import whole_model
from r1_lightning.rollout.generations import joined
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.types.errors import require_int, require_number
from r1_lightning.types.stopping import STOP, Stop
from r1_lightning.types.tensors import Backbone, BackboneOutput, GenerateFn, Generation, LatentCache

# Shape legend: P prompts, R rows being sampled, T new positions, V vocabulary, L layers with experts, K chosen experts.

SHARES = 2**40  # a power of 2, so that the product is exact; 2^17 tokens' worth stays far below 2^63
# Ended rows are dropped once they are this share of the batch: copying the cache costs about one decoding step.
COMPACT_AT_ENDED_SHARE = 0.125


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of sampling: temperature (1 is the model's own distribution), nucleus, length limit in tokens."""

    sampling_temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        require_number("rollout.sampling_temperature", self.sampling_temperature, 0.0, open_minimum=True)
        require_number("rollout.top_p", self.top_p, 0.0, 1.0, open_minimum=True)
        require_int("rollout.max_new_tokens", self.max_new_tokens, 1)


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of a sampler besides the policy: how to draw (`sampling`), and the token ids and seed of the run.

    Any of `eos_ids` ends a completion; `pad_id` fills rows up; `seed` decides the draws together with their keys. At most
    `max_rows` rows are decoded at a time. `record_routes` keeps the experts chosen at every place (for the self-check and to
    replay them; it costs memory). `stop` is polled before every token: what is cut short is drawn again, to the same tokens.
    """

    sampling: SamplingConfig
    eos_ids: Sequence[int]
    pad_id: int
    seed: int
    max_rows: int = 512
    record_routes: bool = False
    stop: Stop = STOP

    def __post_init__(self) -> None:
        require_int("rollout.max_rows", self.max_rows, 1)


class SamplerMaker(Protocol):
    """Makes the function that samples completions: `Sampler` itself, or the settings of another engine."""

    def __call__(self, backbone: Backbone, settings: SamplerSettings) -> GenerateFn: ...


def in_shares(probabilities_RV: Tensor) -> Tensor:
    """Probabilities as whole numbers of `SHARES`: their running sums are the same in every order of summing.

    A GPU has no deterministic kernel for running sums of floating numbers. What is lost, less than 1 / `SHARES` a token, is small
    beside the step of the uniform numbers, 2^-24.
    """
    return (probabilities_RV * SHARES).long()


def nucleus(probabilities_RV: Tensor, top_p: float) -> Tensor:
    """The smallest set of most likely tokens whose mass reaches `top_p`, renormalised; others 0 (R x V)."""
    ordered, index = probabilities_RV.sort(dim=-1, descending=True, stable=True)
    mass, limit = (in_shares(ordered), math.ceil(top_p * SHARES)) if ordered.is_cuda else (ordered, top_p)
    keep = mass.cumsum(-1) - mass < limit  # a token stays while the mass before it is short of top_p
    kept = torch.zeros_like(probabilities_RV).scatter_(-1, index, ordered * keep)
    return kept / kept.sum(-1, keepdim=True)


def inverse_cdf(probabilities_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """Return R token ids: the token at which the cumulative distribution passes the uniform number."""
    if probabilities_RV.is_cuda:
        cumulative = in_shares(probabilities_RV).cumsum(-1)
        threshold = (uniforms_R.double().unsqueeze(-1) * cumulative[:, -1:]).long()
    else:
        cumulative = probabilities_RV.cumsum(-1)
        threshold = uniforms_R.unsqueeze(-1) * cumulative[:, -1:]
    return (cumulative <= threshold).sum(-1).clamp(max=probabilities_RV.shape[-1] - 1)


def device_of(backbone: Any) -> torch.device:
    """Return the device of `backbone`'s weights; the CPU if it has none (a `Backbone` need not be a module)."""
    if isinstance(backbone, torch.nn.Module):
        for parameter in backbone.parameters():
            return parameter.device
    return torch.device("cpu")


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return prompts as token ids P x T and `is_token` P x T, padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    padded = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    column = torch.arange(width, device=device)
    return torch.tensor(padded, dtype=torch.long, device=device), column >= width - lengths[:, None]


@dataclass
class _Collected:
    """Results of R rows, written column by column as tokens are drawn."""

    ids: Tensor
    mask: Tensor
    policy: Tensor
    sampler: Tensor
    finished: Tensor
    routes: Tensor | None = None
    prompt_routes: Tensor | None = None

    @classmethod
    def empty(cls, rows: int, width: int, pad_id: int, device: torch.device) -> _Collected:
        shape = (rows, width)
        policy, sampler = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        ids = torch.full(shape, pad_id, dtype=torch.long, device=device)
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        return cls(ids, mask, policy, sampler, torch.zeros(rows, dtype=torch.bool, device=device))

    def generation(self) -> Generation:
        used = int(self.mask.any(0).sum())
        ids, mask, policy, sampler = (x[:, :used] for x in (self.ids, self.mask, self.policy, self.sampler))
        no_routes = torch.zeros((0, 0, 0, 0), dtype=torch.long, device=ids.device)
        routes = no_routes if self.routes is None else self.routes[:, :, :used]
        prompt_routes = no_routes if self.prompt_routes is None else self.prompt_routes
        return Generation(ids, mask, policy, sampler, self.finished, routes, prompt_routes).to("cpu")


@dataclass(frozen=True)
class Prefilled:
    """A wave of R rows after the prefill of its P prompts: `output` is the prompts', and row i continues prompt `prompt_R[i]`.

    The `cache` has R rows; `uniforms` R x limit determine the draws.
    """

    token_ids: Tensor
    is_token: Tensor
    output: BackboneOutput
    prompt_R: Tensor
    cache: Any
    uniforms: Tensor
    out: _Collected


class Sampler:
    """A `GenerateFn` over any `Backbone`."""

    def __init__(self, backbone: Backbone, settings: SamplerSettings) -> None:
        self.backbone = backbone
        self.config = settings.sampling
        self.eos_id, *self.other_ends = settings.eos_ids
        self.pad_id, self.seed = settings.pad_id, settings.seed
        self.max_rows, self.record_routes = settings.max_rows, settings.record_routes
        # A compiler does not poll: the first tokens may take a minute.
        compiles = getattr(getattr(backbone, "precision", None), "static_shapes", False)
        self.poll, self.while_sampling = settings.stop.poll, settings.stop.at_once if compiles else nullcontext

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        copies: int,
        keys: Tensor,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generation:
        """Return `copies` completions of each of the P prompts, on the CPU; `keys` (P * copies) x 3 determine the draws.

        `max_new_tokens` overrules that of the configuration; `progress` is called after each wave with its number of rows.
        """
        trained, waves, limit = self.backbone, [], max_new_tokens or self.config.max_new_tokens
        total = len(prompts) * copies
        try:
            # In evaluation mode, because a forward in training mode would count expert load for the bias update.
            with whole_model(trained) as self.backbone:
                for start in range(0, total, self.max_rows):
                    rows = range(start, min(start + self.max_rows, total))
                    first, last = rows[0] // copies, rows[-1] // copies  # two waves may share a group
                    own = [row // copies - first for row in rows]
                    self.poll()
                    with self.while_sampling():
                        waves.append(self._wave(prompts[first : last + 1], own, keys[rows.start : rows.stop], limit))
                    if progress:
                        progress(len(rows))
        finally:
            self.backbone = trained
        return joined(waves, self.pad_id)

    def _wave(
        self, prompts: Sequence[Sequence[int]], own_prompt: Sequence[int], keys: Tensor, limit: int
    ) -> Generation:
        """Decode one wave: row i continues prompt `own_prompt[i]` by at most `limit` tokens."""
        start = self._prefill(prompts, own_prompt, keys, limit)
        cache, out, rows = start.cache, start.out, start.prompt_R
        hidden, routes = start.output.hidden[rows, -1], start.output.routes[:, rows, -1:]
        active = torch.arange(len(rows), device=rows.device)
        alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        for position in range(limit):
            self.poll()
            drawn = self._draw(hidden, start.uniforms[active, position])
            ended = self._has_ended(drawn[0], active, position)
            # Ended rows stay in the batch until enough of them can be dropped at once; their draws are not written.
            self._write(out, active[alive], position, [x[alive] for x in (*drawn, ended)], routes[:, alive])
            alive = alive & ~ended
            if position + 1 == limit or not bool(alive.any()):  # nothing is drawn from a forward after the last token
                break
            token = drawn[0]
            if int((~alive).sum()) >= COMPACT_AT_ENDED_SHARE * len(active):
                kept = alive.nonzero().squeeze(1)
                cache.select_rows(kept)
                active, token, alive = active[kept], token[kept], alive[kept]
            hidden, routes = self._decode(token, cache)
        return out.generation()

    def _prefill(
        self, prompts: Sequence[Sequence[int]], own_prompt: Sequence[int], keys: Tensor, limit: int, spare: int = 0
    ) -> Prefilled:
        """Run each prompt once, into a cache with room for `limit` tokens and `spare` more columns."""
        device = device_of(self.backbone)
        token_ids, is_token = left_padded(prompts, self.pad_id, device)
        rows = torch.tensor(own_prompt, device=device)
        cache = self.backbone.new_cache(len(prompts), token_ids.shape[1] + limit + spare)
        output = self.backbone.step(token_ids, is_token, cache)
        cache.select_rows(rows)  # a group shares its prompt: the prompt runs once, and its cache row is copied
        out = _Collected.empty(len(rows), limit, self.pad_id, device)
        if self.record_routes and output.routes.numel():
            before_last = output.routes[:, :, :-1].masked_fill(~is_token[None, :, :-1, None], -1)
            out.prompt_routes = before_last[:, rows]
        uniforms = keyed_uniforms(self.seed, keys.to(device), limit)
        return Prefilled(token_ids, is_token, output, rows, cache, uniforms, out)

    def _has_ended(self, token_R: Tensor, rows_R: Tensor, position: int | Tensor) -> Tensor:
        """R booleans: True if a row ends with the token just drawn (benchmarks override this to force lengths)."""
        ended = token_R == self.eos_id
        for other in self.other_ends:
            ended = ended | (token_R == other)
        return ended

    def _decode(self, token_R: Tensor, cache: LatentCache) -> tuple[Tensor, Tensor]:
        is_token = torch.ones(len(token_R), 1, dtype=torch.bool, device=token_R.device)
        output = self.backbone.step(token_R.unsqueeze(1), is_token, cache)
        return output.hidden[:, 0], output.routes

    def _draw(self, hidden_RD: Tensor, uniforms_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw one token per row; returns token ids, policy log-probs and sampler log-probs, R each."""
        logits_RV = self.backbone.unembed(hidden_RD) / self.config.sampling_temperature
        logprobs_RV = logits_RV.log_softmax(-1)  # before top-p: GRPO's ratio is between policies, which know no nucleus
        probabilities_RV = logprobs_RV.exp()
        if self.config.top_p < 1:
            probabilities_RV = nucleus(probabilities_RV, self.config.top_p)
        token_R = inverse_cdf(probabilities_RV, uniforms_R)
        policy_R = logprobs_RV.gather(-1, token_R.unsqueeze(-1)).squeeze(-1)
        if self.config.top_p == 1:
            return token_R, policy_R, policy_R
        return token_R, policy_R, probabilities_RV.gather(-1, token_R.unsqueeze(-1)).squeeze(-1).log()

    def _write(
        self, out: _Collected, rows: Tensor, position: int | Tensor, drawn: list[Tensor], routes: Tensor
    ) -> None:
        token, policy, sampler, ended = drawn
        out.ids[rows, position] = token
        out.mask[rows, position] = True
        out.policy[rows, position] = policy
        out.sampler[rows, position] = sampler
        out.finished[rows] = ended
        if self.record_routes and routes.numel():
            if out.routes is None:
                layers, _, _, chosen = routes.shape
                shape = (layers, *out.ids.shape, chosen)
                out.routes = torch.zeros(shape, dtype=torch.long, device=out.ids.device)
            out.routes[:, rows, position] = routes[:, :, 0]
