"""The cache of sampling.

For MLA it holds, per token and layer, one latent c^KV and one rotary key, shared by all heads (V3 section 2.1.1). For lightning
attention it holds one state of constant size per row and layer.

The prompts of a batch are left-padded, so every row's newest token is in the same column: appending is one slice assignment, and
padded columns are masked out. `select_rows` both repeats a prompt's row for its group and drops rows that have ended. `grow` adds
columns when those that there are have been used: most rows end long before the limit, and never have a place for it.

With drafts (`rollout/mtp_drafts.py`) rows accept different numbers of the newest columns: `forget_newest` turns a refused draft
into padding. That leaves gaps, which `close_gaps` removes when the room is needed. A latent depends on its position, not on its
column, so moving it changes nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.model.decode_graph import Step, StepGraph
from r1_lightning.model.masked_attention import RowAttention, prompt_attention
from r1_lightning.types.errors import InvalidInput

# Shape legend: R rows, T new positions, S positions so far, C cached elements per token.


# Columns in a block of a GPU's cache. A step reads whole blocks, behind a mask: its shapes then stay for as many tokens, and on
# average half a block is read in vain.
COLUMN_BLOCK = 128
COLUMN_STATE_DIMS = 3  # R x S x C; a recurrent state is R x N x H x H


def columns_per_block(device: torch.device) -> int:
    """1 where a step reads the columns in use alone: on a CPU, which has no graphs to keep, and where columns are only counted."""
    return 1 if device.type in ("cpu", "meta") else COLUMN_BLOCK


def first_room(prompt: int, limit: int) -> int:
    """Columns behind a prompt of `prompt` in a new cache: up to the end of a block, and not more than `limit`."""
    return min(limit, COLUMN_BLOCK - prompt % COLUMN_BLOCK)


def more_room(used: int, left: int) -> int:
    """Columns by which a full cache of `used` grows: half of them in whole blocks, at least one, and not more than are `left`.

    By half, because a GPU's allocator cannot give a slightly larger piece from where a smaller one was.
    """
    return min(left, max(COLUMN_BLOCK, used // 2 // COLUMN_BLOCK * COLUMN_BLOCK))


def append_columns(state_RSC: Tensor, new_RTC: Tensor, start: int | Tensor, width: int | None = None) -> Tensor:
    """Write the newest columns from `start` on, or at the T places in it; returns all columns so far, or the first `width`.

    A view.
    """
    if isinstance(start, Tensor):
        state_RSC.index_copy_(1, start, new_RTC.to(state_RSC.dtype))
        return state_RSC[:, :width]
    stop = start + new_RTC.shape[1]
    state_RSC[:, start:stop] = new_RTC
    return state_RSC[:, :stop]


class LatentKVCache:
    """`states`, one per layer, rows first: `max_tokens` columns of latents for MLA until `grow`, a matrix for lightning attention.

    `length` is the number of columns in use; `mask` R x S is True at tokens, False at padding; `positions` R counts each row's
    tokens so far (its next position id).
    """

    def __init__(self, states: list[Tensor], rows: int, max_tokens: int, device: torch.device) -> None:
        self.states = states
        self.mask = torch.zeros(rows, max_tokens, dtype=torch.bool, device=device)
        self.positions = torch.zeros(rows, dtype=torch.long, device=device)
        self.length = 0
        self.block = columns_per_block(device)
        self.graphs: dict[int, StepGraph] = {}

    @property
    def width(self) -> int:
        """Columns that a step reads: those in use, on a GPU in whole blocks, the rest of which is masked."""
        return min(-(-self.length // self.block) * self.block, self.mask.shape[1])

    def newest(self, columns: int) -> int | Tensor:
        """Where a step writes its `columns`: the first of them; on a GPU all, as a tensor, so that no number is recorded."""
        start = self.length - columns
        return start if self.block == 1 else torch.arange(start, self.length, device=self.mask.device)

    def run(self, step: Step, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run a decoding step of one column, as a graph where it can be one (`model/decode_graph.py`)."""
        if self.block == 1:
            return step(*inputs)
        if self.width not in self.graphs:
            self.graphs = {self.width: StepGraph(step)}  # the former width does not come back
        return self.graphs[self.width](*inputs)

    @property
    def rows(self) -> int:
        return self.mask.shape[0]

    @property
    def room(self) -> int:
        """Number of free columns."""
        return self.mask.shape[1] - self.length

    @property
    def bytes(self) -> int:
        """Memory of the cached states, in bytes."""
        return sum(state.numel() * state.element_size() for state in self.states)

    def advance(self, is_token_RT: Tensor, has_rows: bool = True) -> tuple[Tensor, Tensor | RowAttention]:
        """Make room for T new columns; returns their position ids R x T and the attention mask R x 1 x T x S (True: attend).

        Long prompts get a `RowAttention` in place of a mask, which would grow with T^2, if nothing is cached before them and the
        caller's attention takes one (`has_rows`).
        """
        new = is_token_RT.shape[1]
        if new > self.room:  # a slice past the end would be empty, and the token lost without an error
            raise InvalidInput(f"max_tokens={self.mask.shape[1]} is not allowed: {self.length + new} tokens are needed")
        start, self.length = self.length, self.length + new
        self.mask[:, start : self.length] = is_token_RT
        counted = is_token_RT.long().cumsum(1)
        position_ids_RT = (self.positions[:, None] + counted - 1).clamp(min=0)
        self.positions = self.positions + counted[:, -1]
        rows = prompt_attention(is_token_RT) if has_rows and start == 0 and new > 1 else None
        if rows is not None:
            return position_ids_RT, rows
        attend_R1TS = self.mask[:, None, None, : self.width]
        if new > 1:
            column = torch.arange(self.width, device=self.mask.device)
            attend_R1TS = attend_R1TS & (column <= column[start : self.length, None])
        return position_ids_RT, attend_R1TS

    def select_rows(self, rows: Tensor) -> None:
        """Keep only `rows`, in their order; an index may repeat."""
        self.graphs = {}
        for layer, state in enumerate(self.states):  # one at a time, so that memory never holds two whole caches
            self.states[layer] = state.index_select(0, rows)
        self.mask = self.mask.index_select(0, rows)
        self.positions = self.positions.index_select(0, rows)

    def grow(self, columns: int) -> None:
        """Copy the cache, layer by layer, to where `columns` are free. Recurrent states have no columns, and stay."""
        for layer, state in enumerate(self.states):
            if state.dim() == COLUMN_STATE_DIMS:
                self.states[layer] = F.pad(state[:, : self.length], (0, 0, 0, columns))
        self.mask, self.graphs = F.pad(self.mask[:, : self.length], (0, columns)), {}

    def forget_newest(self, rows_R: Tensor) -> None:
        """Turn the newest column into padding in the rows where `rows_R` is True; their next token takes its position."""
        newest_R = self.mask[:, self.length - 1]
        self.positions = self.positions - (newest_R & rows_R).long()
        self.mask[:, self.length - 1] = newest_R & ~rows_R

    def close_gaps(self) -> None:
        """Move each row's tokens together, the newest into the last column in use, and free the columns that no row needs.

        Copies the kept columns, layer by layer.
        """
        used_RS = self.mask[:, : self.length]
        needed = int(used_RS.sum(1).max())
        padding_first_RS = used_RS.long().argsort(dim=1, stable=True)  # and tokens in their order
        order_RS = padding_first_RS[:, self.length - needed :]
        for state in self.states:
            index = order_RS.unsqueeze(-1).expand(-1, -1, state.shape[-1])
            state[:, :needed] = state[:, : self.length].gather(1, index)
        self.mask[:, :needed] = used_RS.gather(1, order_RS)
        self.mask[:, needed:] = False
        self.length = needed

    def add_rows(self, other: LatentKVCache, room: int) -> None:
        """Put the rows of `other` behind these, each row's newest token in the last column, with `room` free columns after it.

        Copies both, layer by layer: a cache grows by what its rows need, and never holds the longest completion for all of them.
        """
        length = max(self.length, other.length)

        def joined(table: Tensor, its: Tensor) -> Tensor:
            moved = (_moved(table, self.length, length, room), _moved(its, other.length, length, room))
            return torch.cat(moved)

        for layer, state in enumerate(self.states):
            self.states[layer] = joined(state, other.states[layer])
        self.mask, self.positions = joined(self.mask, other.mask), torch.cat([self.positions, other.positions])
        self.length, self.graphs = length, {}

    def make_room(self, columns: int) -> None:
        """Close gaps; where fewer than half of `columns` are free then, copy the cache to where all of them are."""
        self.close_gaps()
        if self.room < columns / 2:
            self.grow(columns)


def _moved(table: Tensor, used: int, length: int, room: int) -> Tensor:
    """The first `used` columns of a table R x S x ... as the last before column `length` of a new one with `room` more."""
    moved = table.new_zeros((len(table), length + room, *table.shape[2:]))
    moved[:, length - used : length] = table[:, :used]
    return moved
