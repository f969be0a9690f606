"""What a wave of the sampler has drawn so far, on the device of the model.

Tokens are written for all rows of the batch, those that have ended too, and what was there stays where a row does not count:
picking rows out by a mask would make the host wait for a GPU, several times per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1_lightning.types.tensors import Generation

# Shape legend: R rows being sampled, L layers with experts, K chosen experts.


@dataclass
class Collected:
    """Results of all rows of a wave, each rows x width, in the columns of their completions."""

    ids: Tensor
    mask: Tensor
    policy: Tensor
    sampler: Tensor
    finished: Tensor
    routes: Tensor | None = None
    prompt_routes: Tensor | None = None

    @classmethod
    def empty(cls, rows: int, width: int, pad_id: int, device: torch.device) -> Collected:
        """No token yet: `pad_id` everywhere, and log-probs of 0."""
        shape = (rows, width)
        policy, sampler = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        ids = torch.full(shape, pad_id, dtype=torch.long, device=device)
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        return cls(ids, mask, policy, sampler, torch.zeros(rows, dtype=torch.bool, device=device))

    def write(
        self, rows_R: Tensor, position: int | Tensor, counts_R: Tensor, drawn: tuple[Tensor, ...], ended_R: Tensor
    ) -> None:
        """Write one token of each of the rows `rows_R` where `counts_R` is True; `position` is theirs, or R positions.

        `drawn` are token ids, policy log-probs and sampler log-probs, R each; `ended_R` is True where the token ends its row.
        """
        place_R = rows_R * self.ids.shape[1] + position
        for table, new_R in zip((self.ids, self.policy, self.sampler), drawn, strict=True):
            flat = table.view(-1)
            flat.index_copy_(0, place_R, torch.where(counts_R, new_R, flat.index_select(0, place_R)))
        mask = self.mask.view(-1)
        mask.index_copy_(0, place_R, counts_R | mask.index_select(0, place_R))
        self.finished.index_copy_(0, rows_R, (counts_R & ended_R) | self.finished.index_select(0, rows_R))

    def write_routes(self, rows_R: Tensor, position: int | Tensor, counts_R: Tensor, routes_LR1K: Tensor) -> None:
        """Write the experts that were chosen where the tokens of `write` were predicted."""
        if self.routes is None:
            layers, _, _, chosen = routes_LR1K.shape
            self.routes = self.ids.new_zeros((layers, *self.ids.shape, chosen))
        flat, place_R = self.routes.flatten(1, 2), rows_R * self.ids.shape[1] + position
        kept = torch.where(counts_R[None, :, None], routes_LR1K[:, :, 0], flat.index_select(1, place_R))
        flat.index_copy_(1, place_R, kept)

    def generation(self) -> Generation:
        """The columns in use, on the CPU."""
        used = int(self.mask.any(0).sum())
        ids, mask, policy, sampler = (x[:, :used] for x in (self.ids, self.mask, self.policy, self.sampler))
        no_routes = torch.zeros((0, 0, 0, 0), dtype=torch.long, device=ids.device)
        routes = no_routes if self.routes is None else self.routes[:, :, :used]
        prompt_routes = no_routes if self.prompt_routes is None else self.prompt_routes
        return Generation(ids, mask, policy, sampler, self.finished, routes, prompt_routes).to("cpu")
