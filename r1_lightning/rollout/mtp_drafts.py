"""Speculative decoding with the MTP module: it drafts a token, the model verifies it (V3 section 5.4.3): `rollout=mtp_drafts`.

If reading weights and cache takes most of a decoding step's time, two tokens of a row cost little more than one. So each step feeds
two: the token drawn last, x_t, and a draft of x_{t+1}. The model draws x_{t+1} from its own distribution after x_t. If the draw
equals the draft, the computation behind the draft is valid, and x_{t+2} is drawn in the same step. If not, the draft is removed
from the cache. V3 has one module (D = 1), which drafts one token; so here a step has one draft, and further modules, if any, are
not used. The module's block attends to its own past, so it has its own latent cache, of one layer.

**What is drawn.** Draws are keyed here: x_t is the inverse of the model's cumulative distribution at the row's uniform number t.
The draft is the inverse of the *module's* cumulative distribution (same temperature, same top-p) at that same number, and it is
accepted iff the model's own keyed draw is the same token. Every token returned is therefore the model's own draw, whatever was
drafted: the distribution is exactly the model's, and the tokens are those of the plain `Sampler` with the same seed and keys. But a
step of two columns rounds differently from a step of one, so a uniform number within rounding of the border between two tokens may
fall on its other side, as it may when rows are batched differently.

**Why not rejection sampling** (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318): a draft from q is
kept with probability min(1, p / q), else x is drawn from the rest of p. It has the same distribution and accepts with probability
1 - TV(p, q), which no coupling exceeds, TV being the total variation. But then the tokens depend on the drafts, and so on the MTP
module's weights and on the positions of drafts: sampling with and without drafts would be two experiments. The cost of the shared
number: p's draw and q's differ iff the number lies between F_p(i) and F_q(i) for some token i, F being cumulative sums over ids, so

    TV(p, q) <= P(refused) <= sum_i |F_p(i) - F_q(i)| <= (V - 1) TV(p, q).

In place of V it is enough to count the ids to which p or q gives mass, which are few if the model is sure. In a flat distribution
the draws often differ, because a little mass moved from the last id to the first shifts every interval in between. Exponential
races (Gumbel) with shared numbers would accept with at least (1 - TV) / (1 + TV) for any p and q (Daliri, Musco and Suresh 2024,
arXiv:2408.07978), but would change the draws of the plain sampler.

**Memory.** Rows accept different numbers of drafts, but their columns stay aligned: a refused draft leaves a gap in its row. The
caches have `SPARE_COLUMNS` more columns than the tokens need, and close the gaps when these are used up. Without that, refused
drafts would take up to twice the columns.

**In RL** the policy changes and, with `stage.mtp_loss_weight` 0, the module does not: fewer and fewer drafts are accepted, but the
drawn tokens stay right. Above 0, the module goes on learning from the completions.

With `precision.compile` steps of two columns run eagerly, because it compiles steps of one column only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from r1_lightning.model.config import AttentionSettings
from r1_lightning.rollout.sampler import Prefilled, Sampler, SamplerSettings, kept_rows
from r1_lightning.types.errors import require
from r1_lightning.types.tensors import Backbone, Drafting, DraftingBackbone, Drafts, GenerateFn, Generation

# Shape legend: P prompts, R rows being sampled, T new positions (1 after the prompt, 2 later), D model width, L layers with
# experts, K chosen experts.

DRAFTED_COLUMNS = 2  # columns of a step: the last token and the draft
# Gaps are closed at most once in half as many steps; closing copies the cache, which costs about one decoding step.
SPARE_COLUMNS = 32


@dataclass
class _Rows:
    """State of the rows in the batch: place in the wave, still alive, number of drawn tokens, last token, draft."""

    active: Tensor
    alive: Tensor
    drawn: Tensor
    token: Tensor
    draft: Tensor

    def keep(self, kept: Tensor) -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name)[kept])


@dataclass
class _Verified:
    """Result of a model step: hidden R x T x D, the token drawn after each position (R x T), and whether it counts."""

    hidden: Tensor
    next_ids: Tensor
    counts: Tensor


def check_forgets(attention_kinds: Iterable[AttentionSettings]) -> None:
    """Raise `InvalidInput` where a layer's state cannot give a refused token back."""
    allowed = "rollout=mtp_drafts takes refused tokens back, which a recurrent state cannot"
    for kind in attention_kinds:
        require(not kind.is_recurrent, "model.attention_kind", kind.name, allowed)


class DraftingSampler(Sampler):
    """A `Sampler` that draws the same tokens in fewer steps. `drafts` counts the drafts of the latest call."""

    runs_mtp = True

    def __init__(self, backbone: Backbone, settings: SamplerSettings) -> None:
        super().__init__(backbone, settings)
        depth = backbone.mtp_depth if isinstance(backbone, DraftingBackbone) else 0
        require(depth >= 1, "model.mtp_depth", depth, "rollout=mtp_drafts needs an MTP module to draft with")
        check_forgets(getattr(backbone, "attention_kinds", {}).values())
        self.drafts = Drafts()

    @property
    def drafter(self) -> Any:
        """The backbone that samples now, with its MTP module."""
        return self.backbone

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        copies: int,
        keys: Tensor,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generation:
        self.drafts = Drafts()
        return super().__call__(prompts, copies, keys, max_new_tokens, progress)

    def _wave(
        self, prompts: Sequence[Sequence[int]], own_prompt: Sequence[int], keys: Tensor, limit: int
    ) -> Generation:
        start = self._prefill(prompts, own_prompt, keys, limit, limit + SPARE_COLUMNS)
        caches = [start.cache, self._prefill_mtp(start)]
        rows, verified = self._first_tokens(start)
        while bool(rows.alive.any()):
            self.poll()
            self._draft(start, rows, verified, caches[1])
            kept = kept_rows(rows.alive)
            if kept is not None:
                rows.keep(kept)
                for cache in caches:
                    cache.select_rows(kept)
            for cache in caches:
                if cache.room < DRAFTED_COLUMNS:
                    cache.close_gaps()
            verified = self._verify(start, rows)
        return start.out.generation()

    def _prefill_mtp(self, start: Prefilled) -> Any:
        """Fill the MTP module's cache with the prompts, except each prompt's last token, whose successor is not drawn yet."""
        token_ids, is_token = start.token_ids, start.is_token
        cache = self.drafter.new_mtp_cache(len(token_ids), start.cache.length + start.cache.room)
        if token_ids.shape[1] > 1:
            self.drafter.step_mtp(start.output.hidden[:, :-1], token_ids[:, 1:], is_token[:, :-1], cache)
        cache.select_rows(start.prompt_R)
        return cache

    def _first_tokens(self, start: Prefilled) -> tuple[_Rows, _Verified]:
        """Draw each row's first token from the hidden state at its prompt's end."""
        active = torch.arange(len(start.prompt_R), device=start.prompt_R.device)
        none = torch.zeros_like(active)
        rows = _Rows(active, torch.ones_like(active, dtype=torch.bool), none, none, none)
        counts = rows.alive
        hidden = start.output.hidden[start.prompt_R, -1]
        token = self._take(start, rows, hidden, start.output.routes[:, start.prompt_R, -1:], counts)
        return rows, _Verified(hidden.unsqueeze(1), token.unsqueeze(1), counts.unsqueeze(1))

    def _draft(self, start: Prefilled, rows: _Rows, verified: _Verified, cache: Any) -> None:
        """Run the MTP module over the verified positions and draft the token after the last one."""
        counts = verified.counts
        hidden = self.drafter.step_mtp(verified.hidden, verified.next_ids, counts, cache)
        newest = (counts.long().sum(1) - 1).clamp(min=0)
        last = hidden[torch.arange(len(newest), device=newest.device), newest]
        rows.draft = self._draw(last, self._uniforms(start, rows))[0]

    def _verify(self, start: Prefilled, rows: _Rows) -> _Verified:
        """Run one model step over last token and draft; draw the token after the first, and after the draft if it is accepted."""
        alive = rows.alive
        pair = torch.stack([rows.token, rows.draft], 1)
        output = self.backbone.step(pair, alive.unsqueeze(1).expand_as(pair), start.cache)
        first = self._take(start, rows, output.hidden[:, 0], output.routes[:, :, :1], alive)
        accepted = alive & (first == rows.draft)
        going = accepted & rows.alive  # the accepted draft may be the row's EOS
        second = self._take(start, rows, output.hidden[:, 1], output.routes[:, :, 1:], going)
        start.cache.forget_newest(~going)
        self.drafts += Drafts(int(alive.sum()), int(accepted.sum()))
        return _Verified(output.hidden, torch.stack([first, second], 1), torch.stack([alive, going], 1))

    def _take(self, start: Prefilled, rows: _Rows, hidden_RD: Tensor, routes_LR1K: Tensor, counts: Tensor) -> Tensor:
        """Draw a token for each row, store it where `counts` is True, and return all R tokens."""
        drawn = self._draw(hidden_RD, self._uniforms(start, rows))
        token, place = drawn[0], rows.drawn
        ended = self._has_ended(token, rows.active, place)
        within = place.clamp(
            max=start.uniforms.shape[1] - 1
        )  # a full row's place is behind the last; its draw is dropped
        self._write(start.out, rows.active, within, counts, drawn, ended, routes_LR1K)
        rows.token = torch.where(counts, token, rows.token)
        rows.drawn = place + counts.long()
        rows.alive = rows.alive & ~(counts & (ended | (rows.drawn == start.uniforms.shape[1])))
        return token

    def _uniforms(self, start: Prefilled, rows: _Rows) -> Tensor:
        """Each row's next uniform number; for a full row any number, since its draw is dropped."""
        return start.uniforms[rows.active, rows.drawn.clamp(max=start.uniforms.shape[1] - 1)]


@dataclass(frozen=True)
class MTPDrafts:
    """Samples with drafts of the MTP module: the leaf `rollout.sampler`. There is nothing to set."""

    drafts = True  # tokens, which the model verifies
    records_routes = True

    def __call__(self, backbone: Backbone, settings: SamplerSettings) -> GenerateFn:
        """A `SamplerMaker`. `InvalidInput` where the model has no MTP module."""
        return DraftingSampler(backbone, settings)


def drafts_of(generate: GenerateFn) -> Drafts:
    """Return the drafts of the latest call of `generate`; zero counts if it does not draft."""
    return generate.drafts if isinstance(generate, Drafting) else Drafts()
