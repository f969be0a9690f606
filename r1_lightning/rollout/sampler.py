"""Batched sampling with the latent cache: one prefill per prompt, and rows leave the batch when they end.

The sampler stores two log-probs for every token. `policy_logprobs` is that of softmax(logits / sampling_temperature), the policy
that GRPO trains; `sampler_logprobs` is that of the distribution drawn from, which top-p renormalises. Draws are keyed (see
`rollout/keyed_random.py`): token t of a row is the inverse of the cumulative distribution at the row's uniform number t (see
`rollout/drawing.py`).

The sampler holds the backbone object that is being trained, so no copy can go stale; one that is sharded over processes is gathered
for each call (`model/whole_copy.py`), also for a call without prompts. It works on the device of the backbone's
weights and returns everything on the CPU, where rollouts are judged, shuffled into minibatches and saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from r1_lightning.model.cast_weights import cast_once
from r1_lightning.model.kv_cache import first_room, more_room
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.rollout.collected import Collected
from r1_lightning.rollout.drawing import inverse_cdf, nucleus
from r1_lightning.rollout.generations import joined
from r1_lightning.rollout.keyed_random import keyed_uniforms
from r1_lightning.types.errors import require_int, require_number
from r1_lightning.types.stopping import STOP, Stop
from r1_lightning.types.tensors import Backbone, BackboneOutput, GenerateFn, Generation, LatentCache

# Shape legend: P prompts, R rows being sampled, T new positions, V vocabulary, L layers with experts, K chosen experts.

# Ended rows are dropped once they are this share of the batch: copying the cache costs about one decoding step.
COMPACT_AT_ENDED_SHARE = 0.125
# On a GPU the host waits for all that it has launched when it looks at which rows have ended: once in so many tokens, of which
# rows that have ended draw at most so many in vain. On a CPU there is nothing to wait for.
TOKENS_PER_LOOK = 16


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


def tokens_per_look(device: torch.device) -> int:
    """How many tokens are drawn between two looks at which rows have ended."""
    return 1 if device.type == "cpu" else TOKENS_PER_LOOK


def kept_rows(alive_R: Tensor) -> Tensor | None:
    """The rows to go on with, none if all have ended; None if all R stay, because too few have ended yet. The host waits."""
    on_host = alive_R.cpu()
    going = int(on_host.sum())
    if going and len(on_host) - going < COMPACT_AT_ENDED_SHARE * len(on_host):
        return None
    return on_host.nonzero().squeeze(1).to(alive_R.device)


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
    out: Collected


class Sampler:
    """A `GenerateFn` over any `Backbone`."""

    runs_mtp = False  # whether MTP modules take part

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
        trained, limit = self.backbone, max_new_tokens or self.config.max_new_tokens
        own = [row // copies for row in range(len(prompts) * copies)]
        try:
            # In evaluation mode, because a forward in training mode would count expert load for the bias update.
            with whole_model(trained) as self.backbone, self._cast_once():
                return joined(self._drawn(prompts, own, keys, limit, progress or (lambda rows: None)), self.pad_id)
        finally:
            self.backbone = trained

    def _drawn(
        self,
        prompts: Sequence[Sequence[int]],
        own_prompt: Sequence[int],
        keys: Tensor,
        limit: int,
        progress: Callable[[int], None],
    ) -> list[Generation]:
        """Draw all rows in their order, here in waves of at most `max_rows`; row i continues prompt `own_prompt[i]`."""
        waves = []
        for start in range(0, len(own_prompt), self.max_rows):
            rows = range(start, min(start + self.max_rows, len(own_prompt)))
            self.poll()
            with self.while_sampling():
                waves.append(self._wave(*self._asked(prompts, own_prompt, rows), keys[rows.start : rows.stop], limit))
            progress(len(rows))
        return waves

    @staticmethod
    def _asked(
        prompts: Sequence[Sequence[int]], own_prompt: Sequence[int], rows: range
    ) -> tuple[Sequence[Sequence[int]], list[int]]:
        """The prompts that `rows` continue, and the place of each row's own among them; two waves may share a group."""
        first, last = own_prompt[rows[0]], own_prompt[rows[-1]]
        return prompts[first : last + 1], [own_prompt[row] - first for row in rows]

    def _cast_once(self) -> AbstractContextManager[None]:
        """Hold the weights that tokens are drawn with in the compute type, in place of a cast in every step."""
        return cast_once(self.backbone, () if self.runs_mtp else getattr(self.backbone, "mtp_modules", ()))

    def _wave(
        self, prompts: Sequence[Sequence[int]], own_prompt: Sequence[int], keys: Tensor, limit: int
    ) -> Generation:
        """Decode one wave: row i continues prompt `own_prompt[i]` by at most `limit` tokens."""
        longest = max(map(len, prompts))
        start = self._prefill(prompts, own_prompt, keys, limit, first_room(longest, limit))
        cache, out, rows = start.cache, start.out, start.prompt_R
        hidden, routes = start.output.hidden[rows, -1], start.output.routes[:, rows, -1:]
        active = torch.arange(len(rows), device=rows.device)
        alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        for position in range(limit):
            self.poll()
            drawn = self._draw(hidden, start.uniforms[active, position])
            ended = self._has_ended(drawn[0], active, position)
            # Ended rows stay in the batch until enough of them can be dropped at once; their draws are not kept.
            self._write(out, active, position, alive, drawn, ended, routes)
            token, alive = drawn[0], alive & ~ended
            if position + 1 == limit:  # nothing is drawn from a forward after the last token
                break
            if (position + 1) % tokens_per_look(rows.device) == 0:
                kept = kept_rows(alive)
                if kept is not None:
                    if not len(kept):
                        break
                    cache.select_rows(kept)
                    active, token, alive = active[kept], token[kept], alive[kept]
            if cache.room < 1:
                cache.grow(more_room(longest + position, limit - 1 - position))
            hidden, routes = self._decode(token, cache)
        return out.generation()

    def _prefill(
        self, prompts: Sequence[Sequence[int]], own_prompt: Sequence[int], keys: Tensor, limit: int, room: int
    ) -> Prefilled:
        """Run each prompt once, into a cache with `room` more columns; at most `limit` tokens will be drawn."""
        device = device_of(self.backbone)
        token_ids, is_token = left_padded(prompts, self.pad_id, device)
        rows = torch.tensor(own_prompt, device=device)
        cache = self.backbone.new_cache(len(prompts), token_ids.shape[1] + room)
        output = self.backbone.step(token_ids, is_token, cache)
        cache.select_rows(rows)  # a group shares its prompt: the prompt runs once, and its cache row is copied
        out = Collected.empty(len(rows), limit, self.pad_id, device)
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
        logits_RV = self.backbone.unembed(hidden_RD)
        if self.config.sampling_temperature != 1:
            logits_RV = logits_RV / self.config.sampling_temperature
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
        self,
        out: Collected,
        rows: Tensor,
        position: int | Tensor,
        counts: Tensor,
        drawn: tuple[Tensor, Tensor, Tensor],
        ended: Tensor,
        routes: Tensor,
    ) -> None:
        """Keep what was drawn for `rows`, where `counts` is True."""
        out.write(rows, position, counts, drawn, ended)
        if self.record_routes and routes.numel():
            out.write_routes(rows, position, counts, routes)


@dataclass(frozen=True)
class Eager:
    """Samples with the model's own steps alone, also where native ones fit: the leaf `rollout.sampler`. There is nothing to set."""

    records_routes = True

    def __call__(self, backbone: Backbone, settings: SamplerSettings) -> GenerateFn:
        """A `SamplerMaker`."""
        return Sampler(backbone, settings)
