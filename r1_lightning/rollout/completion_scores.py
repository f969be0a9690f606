"""Scores every token of sampled completions with a model, in packed rows as in training, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from r1_lightning.rollout.collate import collate
from r1_lightning.rollout.results import Rollout
from r1_lightning.rollout.scoring import completion_index
from r1_lightning.types.tensors import Generation, GRPOBatch

# Shape legend: R completions, T positions of a completion, C completion tokens of a batch, in the order of its packed rows.

SCORED_TOKENS = 2**16  # in one forward: limits its activations


@torch.no_grad()
def completion_scores(
    score: Callable[[GRPOBatch], Tensor],
    prompts: Sequence[Sequence[int]],
    generation: Generation,
    pad_id: int,
    scored_tokens: int = SCORED_TOKENS,
) -> Tensor:
    """Return a number for each token of a generation, R x T on the CPU in FP32, 0 on padding.

    `score` maps packed rows of at most `scored_tokens` tokens to one number for each of their C completion tokens.
    """
    rows, width = generation.completion_ids.shape
    rollout = Rollout.unjudged(prompts, generation)
    longest = max(map(len, prompts)) + width
    scores = torch.zeros(rows, width)
    for chosen in torch.arange(rows).split(max(1, scored_tokens // longest)):
        batch = collate(rollout, chosen, longest, pad_id)
        scored_C = score(batch).float().cpu()
        # From the order of the packed rows to that of the sequences; within one, both run from left to right.
        by_sequence = batch.sequence_ids.flatten()[completion_index(batch)].argsort(stable=True)
        mask = generation.completion_mask[chosen]
        scores[chosen] = scores[chosen].masked_scatter(mask, scored_C[by_sequence])
    return scores
