"""Scoring: a backbone's log-probs of completion tokens in packed rows.

The same function serves the policy in training, the frozen reference and the self-check at step 0, so that all three compute the
same quantity: log softmax(logits / sampling_temperature) of each completion token given the tokens before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1_lightning.types.tensors import Backbone, BackboneOutput, GRPOBatch, PreferenceBatch

# Shape legend: C completion tokens of the minibatch, in the order of the packed rows.

Completions = GRPOBatch | PreferenceBatch  # of the sampler, whose experts can be replayed, or of a data set


@dataclass(frozen=True)
class ScoredCompletions:
    """Log-probs C, the entropies of the distributions they come from (C, nats), and the backbone's output."""

    logprobs: Tensor
    entropies: Tensor
    output: BackboneOutput


def completion_index(batch: Completions) -> Tensor:
    """Flat positions (row * T + column) of the completion tokens, C."""
    return batch.completion_mask.flatten().nonzero().squeeze(1)


def score_completions(
    backbone: Backbone,
    batch: Completions,
    sampling_temperature: float,
    with_mtp: bool = False,
    replay: bool = False,
    **mtp: bool,
) -> ScoredCompletions:
    """Score every completion token of `batch`; logits are computed for those positions only, tile by tile.

    `replay` uses the sampler's routes in place of the router's; `mtp` is for backbones with MTP modules (`mtp_detached`).

    The hidden state one position before a token predicts it; that position is in the same document because a prompt is
    never empty.
    """
    index_C = completion_index(batch)
    routes = batch.routes if replay and isinstance(batch, GRPOBatch) else None
    output = backbone.hidden(batch.tokens, with_mtp, routes, **mtp)
    hidden_CD = output.hidden.flatten(0, 1).index_select(0, index_C - 1)
    targets_C = batch.tokens.token_ids.flatten().index_select(0, index_C)
    logprobs_C, entropy_C = backbone.token_logprobs(hidden_CD, targets_C, sampling_temperature)
    return ScoredCompletions(logprobs_C, entropy_C, output)


@torch.no_grad()
def reference_logprobs(
    backbone: Backbone, batch: Completions, sampling_temperature: float, replay: bool = False
) -> Tensor:
    """Log-probs C without gradients."""
    return score_completions(backbone, batch, sampling_temperature, replay=replay).logprobs
