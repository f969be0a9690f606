"""Continuous batching: a row that has ended makes room for one that waits: `rollout=refilled`.

In waves (`rollout/sampler.py`) the last rows of a wave are drawn with the others' places empty, and the cache is as wide as the
longest completion so far. Here rows join whenever a share of the places is free: their prompts are read together, and their
caches put behind those of the rows at work. The cache holds the columns that the longest row at work needs, and up to
`COLUMN_BLOCK` more; when these are used up, gaps are closed and it grows.

**The same tokens.** The key of a row decides its draws, whichever rows share its batch, so tokens are those of waves with the same
seed and keys. Their log-probs are, to rounding: kernels round by the number of rows and columns, as they do with another
`rollout.max_rows`, so a draw within rounding of the border between two tokens may differ.

A group's prompt is read once by those of its rows that join together; each row has a copy of its prompt's columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.model.kv_cache import COLUMN_BLOCK
from r1_lightning.rollout.collected import Collected
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, device_of, tokens_per_look
from r1_lightning.types.errors import require
from r1_lightning.types.tensors import Backbone, GenerateFn, Generation

# Shape legend: R rows at work, L layers with experts, K chosen experts.

# Rows join when this share of the places is free: reading prompts and moving the cache costs about two decoding steps.
REFILL_AT_FREE_SHARE = 0.125


@dataclass
class _Rows:
    """Rows at work, each field R first: place among all rows, still alive, number of drawn tokens, uniform numbers (R x limit), the
    token drawn last, and what the next is drawn from: hidden states and their routes (R x L x 1 x K).
    """

    place: Tensor
    alive: Tensor
    drawn: Tensor
    uniforms: Tensor
    token: Tensor
    hidden: Tensor
    routes: Tensor

    def keep(self, kept: Tensor) -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name)[kept])

    def join(self, other: _Rows) -> None:
        for item in fields(self):
            setattr(self, item.name, torch.cat([getattr(self, item.name), getattr(other, item.name)]))


class RefillingSampler(Sampler):
    """A `Sampler` whose places are filled again. Raises InvalidInput where a layer's state cannot be moved between columns."""

    def __init__(self, backbone: Backbone, settings: SamplerSettings) -> None:
        super().__init__(backbone, settings)
        kinds = getattr(backbone, "attention_kinds", {})
        own = bool(kinds) and not any(kind.is_recurrent for kind in kinds.values())
        allowed = "rollout=refilled moves the columns of our own cache, which has no recurrent layers"
        require(own, "model", ", ".join(kinds) or type(backbone).__name__, allowed)

    def _drawn(
        self,
        prompts: Sequence[Sequence[int]],
        own_prompt: Sequence[int],
        keys: Tensor,
        limit: int,
        progress: Callable[[int], None],
    ) -> list[Generation]:
        if not own_prompt:
            return []
        with self.while_sampling():
            return [_Pool(self, prompts, own_prompt, keys, limit, progress).drawn()]


class _Pool:
    """All rows of one call: those at work in `rows` and `cache`, those that wait from `waiting` on."""

    def __init__(
        self,
        sampler: RefillingSampler,
        prompts: Sequence[Sequence[int]],
        own_prompt: Sequence[int],
        keys: Tensor,
        limit: int,
        progress: Callable[[int], None],
    ) -> None:
        self.sampler, self.prompts, self.own, self.keys = sampler, prompts, own_prompt, keys
        self.limit, self.progress, self.waiting = limit, progress, 0
        self.device = device_of(sampler.backbone)
        self.each = tokens_per_look(self.device)
        self.room = min(limit, COLUMN_BLOCK)
        self.out = Collected.empty(len(own_prompt), limit, sampler.pad_id, self.device)
        self.prompt_routes: list[Tensor] = []
        self.rows, self.cache = self._read(self._joining(0))

    def drawn(self) -> Generation:
        """Draw until no row is at work or waits."""
        steps = 0
        while len(self.rows.place):
            self.sampler.poll()
            self._draw()
            steps += 1
            joining = self._leave() if steps % self.each == 0 else range(0)
            if len(self.rows.place):
                self._decode()
            if joining:
                self._join(joining)
        if self.prompt_routes:
            longest = max(part.shape[2] for part in self.prompt_routes)
            parts = [F.pad(part, (0, 0, longest - part.shape[2], 0), value=-1) for part in self.prompt_routes]
            self.out.prompt_routes = torch.cat(parts, 1)
        return self.out.generation()

    def _joining(self, at_work: int) -> range:
        """The waiting rows for which there is a place beside those at work; they wait no longer."""
        joining = range(self.waiting, min(self.waiting + self.sampler.max_rows - at_work, len(self.own)))
        self.waiting = joining.stop
        return joining

    def _read(self, joining: range) -> tuple[_Rows, Any]:
        """Read the prompts of `joining`, into a cache with little room."""
        asked = self.sampler._asked(self.prompts, self.own, joining)
        keys = self.keys[joining.start : joining.stop]
        start = self.sampler._prefill(*asked, keys, self.limit, self.room)
        if start.out.prompt_routes is not None:
            self.prompt_routes.append(start.out.prompt_routes)
        place = torch.arange(joining.start, joining.stop, device=self.device)
        nothing = torch.zeros_like(place)
        hidden = start.output.hidden[start.prompt_R, -1]
        routes = start.output.routes[:, start.prompt_R, -1:].transpose(0, 1)
        alive = torch.ones_like(place, dtype=torch.bool)
        return _Rows(place, alive, nothing, start.uniforms, nothing, hidden, routes), start.cache

    def _draw(self) -> None:
        """Draw a token of every row, and keep those of the rows that are alive."""
        rows, sampler = self.rows, self.sampler
        position = rows.drawn.clamp(max=self.limit - 1)
        drawn = sampler._draw(rows.hidden, rows.uniforms.gather(1, position.unsqueeze(1)).squeeze(1))
        ended = sampler._has_ended(drawn[0], rows.place, position)
        sampler._write(self.out, rows.place, position, rows.alive, drawn, ended, rows.routes.transpose(0, 1))
        rows.token, rows.drawn = drawn[0], rows.drawn + rows.alive
        rows.alive = rows.alive & ~ended & (rows.drawn < self.limit)

    def _leave(self) -> range:
        """Drop the rows that have ended where they are many enough; returns the rows that may join. The host waits."""
        on_host = self.rows.alive.cpu()
        going = int(on_host.sum())
        ended = len(on_host) - going
        if going and ended < REFILL_AT_FREE_SHARE * len(on_host):
            return range(0)
        kept = on_host.nonzero().squeeze(1).to(self.device)
        self.rows.keep(kept)
        self.cache.select_rows(kept)
        self.progress(ended)
        return self._joining(going)

    def _decode(self) -> None:
        """One step of the rows at work. Rows that have ended add padding."""
        if self.cache.room < 1:
            self.cache.make_room(self.room)
        rows = self.rows
        output = self.sampler.backbone.step(rows.token.unsqueeze(1), rows.alive.unsqueeze(1), self.cache)
        rows.hidden, rows.routes = output.hidden[:, 0], output.routes.transpose(0, 1)

    def _join(self, joining: range) -> None:
        rows, cache = self._read(joining)
        if not len(self.rows.place):
            self.rows, self.cache = rows, cache
            return
        self.rows.join(rows)
        self.cache.close_gaps()
        self.cache.add_rows(cache, self.room)


@dataclass(frozen=True)
class Refilled:
    """Samples with places that are filled again: the leaf `rollout.sampler`. There is nothing to set."""

    records_routes = True

    def __call__(self, backbone: Backbone, settings: SamplerSettings) -> GenerateFn:
        """A `SamplerMaker`. `InvalidInput` where the cache cannot be moved."""
        return RefillingSampler(backbone, settings)
