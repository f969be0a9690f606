"""Backbones that are simple enough to know what they must say, and samplers and rollouts made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from r1_lightning.functional.logprobs import entropy, token_logprobs
from r1_lightning.rollout.results import Rollout
from r1_lightning.types.tensors import BackboneOutput, Generation, TokenBatch
from r1_lightning.types.text import Problem


class RowCounter:
    """A cache that holds nothing but how many rows it serves, and how many columns are free."""

    bytes = 0

    def __init__(self, rows: int, room: int) -> None:
        self.rows, self.room = rows, room
        self.steps = 0

    def take(self, columns: int) -> None:
        assert 0 < columns <= self.room
        self.room -= columns

    def grow(self, columns: int) -> None:
        self.room = columns

    def select_rows(self, rows: Tensor) -> None:
        self.rows = len(rows)


class MarkovBackbone(nn.Module):
    """The next token depends on the last one only: `logits` V x V, one line per last token. A `Backbone`.

    `decoded` lists how many rows each call of `step` had, those with prompts left out; `was_training` the mode of each call.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.decoded: list[int] = []
        self.was_training: list[bool] = []

    def _output(self, token_ids: Tensor) -> BackboneOutput:
        hidden = nn.functional.one_hot(token_ids, len(self.logits)).float()
        empty = torch.zeros((0, 0), dtype=torch.long)
        return BackboneOutput(hidden, (), empty, torch.zeros(()), torch.zeros((0, *token_ids.shape, 0)))

    def hidden(self, batch: TokenBatch, with_mtp: bool = True, replayed_LBTK: Tensor | None = None) -> BackboneOutput:
        return self._output(batch.token_ids)

    def unembed(self, hidden: Tensor) -> Tensor:
        return hidden @ self.logits

    def token_logprobs(
        self, hidden_ND: Tensor, targets_N: Tensor, sampling_temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        logits = self.unembed(hidden_ND)
        return token_logprobs(logits, targets_N, sampling_temperature), entropy(logits, sampling_temperature)

    def new_cache(self, rows: int, max_tokens: int) -> RowCounter:
        return RowCounter(rows, max_tokens)

    def step(self, token_ids: Tensor, is_token: Tensor, cache: RowCounter) -> BackboneOutput:
        assert cache.rows == len(token_ids)
        cache.take(token_ids.shape[1])
        self.was_training.append(self.training)
        if cache.steps:
            self.decoded.append(len(token_ids))
        cache.steps += 1
        return self._output(token_ids)


def keys_of(prompts: int, copies: int, rollout: int = 0) -> Tensor:
    """(rollout, prompt, sample) for each row, written out."""
    return torch.tensor([[rollout, prompt, sample] for prompt in range(prompts) for sample in range(copies)])


def generation_of(completions: Sequence[Sequence[int]], finished: Sequence[bool], pad_id: int = 0) -> Generation:
    """Completions as a `Generation`; token t of row r has policy log-prob -(r + t / 100) and sampler log-prob half of it."""
    width = max(map(len, completions))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in completions])
    mask = torch.tensor([[column < len(row) for column in range(width)] for row in completions])
    policy = -(torch.arange(len(completions))[:, None] + torch.arange(width)[None, :] / 100.0) * mask
    no_routes = torch.zeros((0, 0, 0, 0), dtype=torch.long)
    return Generation(ids, mask, policy, policy / 2, torch.tensor(finished), no_routes, no_routes)


def rollout_of(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], rewards: Tensor, number: int = 0
) -> Rollout:
    """A judged rollout; the advantages are 0, 1, 2, ... row by row, so that each can be told from the others."""
    generation = generation_of(completions, [True] * len(completions))
    problems = [Problem(f"q{i}", "0", f"p{i}") for i in range(len(prompts))]
    advantages = torch.arange(rewards.numel())[:, None] * generation.completion_mask.float()
    texts = [""] * len(completions)
    why = {"accuracy": [f"row {row}" for row in range(len(completions))]}
    parts = {"accuracy": rewards}
    return Rollout(
        problems=problems,
        prompts=prompts,
        texts=texts,
        generation=generation,
        rewards=rewards,
        parts=parts,
        reasons=why,
        advantages=advantages,
        number=number,
        policy_version=3,
        drawn_groups=len(prompts),
    )
